package tree

import "encoding/json"

// healthText is .wcfs/health: one JSON object. It never blocks.
func (fs *FS) healthText() string {
	text, err := json.MarshalIndent(fs.core.Health(), "", "  ")
	if err != nil { // a number that JSON does not have
		return "{}\n"
	}
	return string(text) + "\n"
}
