// Package urlparam reads the parameters of database URLs, by one rule for every scheme.
//
// It owns the rule, and the names that zodburi has for every database. A driver tells it what its own scheme has
// beside those (Scheme); it does not know what any of them means.
//
// The rule: a parameter that means something to this server is taken. One that only means something to Python
// clients (caches and pools of theirs, how they write) is accepted and has no effect, so that one URL does for both.
// demostorage is refused where it is true: the changes would be in the memory of one Python process. All others are
// errors. Text is taken as Python's parse_qsl takes it: parameters are separated by "&" alone, "+" is a blank, an escape
// that is none stays as it is; a parameter without a value is as good as not there, and of several the last counts.
package urlparam

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"wcfs/zcore/zodb"
)

// ofDatabase are the parameters that zodburi takes for the database over any storage.
const ofDatabase = "database_name connection_pool_size connection_pool_timeout connection_cache_size" +
	" connection_cache_size_bytes connection_historical_pool_size connection_historical_cache_size" +
	" connection_historical_cache_size_bytes connection_historical_timeout connection_large_record_size"

// demoName is the parameter that has Python lay changes in memory over the database.
const demoName = "demostorage"

// Scheme is what URLs of one scheme take; names are separated by blanks.
type Scheme struct {
	Name   string // for errors, like "zeo URL"
	Taken  string // what means something to this server
	Python string // what means something to Python clients only, beside ofDatabase
	// Dashes tells that names may be written with "-" for "_", and in capitals.
	Dashes bool
}

// Values are the parameters that are taken and have a value.
type Values map[string]string

// Parse reads the part of a URL after "?".
func (s *Scheme) Parse(query string) (Values, error) {
	vals := Values{}
	for _, p := range Split(query) {
		name := p.Name
		if s.Dashes {
			name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
		}
		switch {
		case p.Value == "":
		case has(s.Taken, name):
			vals[name] = p.Value
		case name == demoName:
			if demo, err := Bool(p.Value); err != nil || demo {
				return nil, zodb.URLErrorf("%s has %s=%s: its changes would be in the memory of one Python process;"+
					" lay one database over another by demo:(BASE)/(CHANGES)", s.Name, demoName, p.Value)
			}
		case !has(s.Python, name) && !has(ofDatabase, name):
			return nil, zodb.URLErrorf("%s has an unknown parameter %q%s", s.Name, p.Name, s.known())
		}
	}
	return vals, nil
}

func (s *Scheme) known() string {
	if s.Taken == "" {
		return ""
	}
	return " (known: " + strings.Join(strings.Fields(s.Taken), ", ") + ", and what zodburi takes for Python clients)"
}

func has(names, name string) bool { return slices.Contains(strings.Fields(names), name) }

// Param is one parameter.
type Param struct{ Name, Value string }

// Split takes the part of a URL after "?" apart.
func Split(query string) []Param {
	var list []Param
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if pair != "" {
			list = append(list, Param{unescape(name), unescape(value)})
		}
	}
	return list
}

// unescape leaves alone what is no escape.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b.WriteByte(' ')
		case c == '%' && i+2 < len(s):
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Bool reads a value as zodburi does: a word for yes or no, or a number.
func Bool(s string) (bool, error) {
	n, err := Int(s)
	return n != 0, err
}

// Int reads a number, or a word for yes or no as 1 or 0.
func Int(s string) (int, error) {
	switch strings.ToLower(s) {
	case "on", "true", "t", "yes":
		return 1, nil
	case "off", "false", "f", "no":
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0, fmt.Errorf("%q is no whole number, and not yes or no", s)
	}
	return n, nil
}
