package tree

import (
	"context"
	"encoding/json"
	"slices"

	"wcfs/zcore"
)

// healthText is .wcfs/health: one JSON object. It never blocks.
func (fs *FS) healthText() string {
	text, err := json.MarshalIndent(fs.core.Health(), "", "  ")
	if err != nil { // a number that JSON does not have
		return "{}\n"
	}
	return string(text) + "\n"
}

// stateFile is .wcfs/state: one JSON object. A guest is told of no other guest's watches, nor of processes here.
type stateFile struct{ *volatile }

func (f *stateFile) Open(_ context.Context, who Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write); err != nil {
		return nil, err
	}
	return &textHandle{fs: f.fs, text: func() string { return f.fs.stateText(who.Domain) }}, nil
}

// stateText is the state as a client in dom may know it.
func (fs *FS) stateText(dom *zcore.Domain) string {
	s := fs.core.State()
	if dom != fs.core.Host() {
		s.Clients = slices.DeleteFunc(s.Clients, func(c zcore.ClientState) bool { return c.Pid != 0 || c.Name != dom.Name() })
	}
	text, err := json.Marshal(s)
	if err != nil { // a number that JSON does not have
		return "{}\n"
	}
	return string(text) + "\n"
}
