package urlparam

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"wcfs/zcore/zodb"
)

var scheme = Scheme{Name: "x URL", Taken: "storage wait", Python: "read_only"}

// db/17: text is taken as Python takes it.
func TestAsPython(t *testing.T) {
	for query, want := range map[string]Values{
		"":                         {},
		"storage=1":                {"storage": "1"},
		"storage=":                 {},
		"storage":                  {},
		"storage=a&storage=":       {"storage": "a"},
		"storage=a&storage=b":      {"storage": "b"},
		"storage=a+b%20c%2Bd":      {"storage": "a b c+d"},
		"storage=semi;colon":       {"storage": "semi;colon"},
		"storage=a%26b%3Dc":        {"storage": "a&b=c"},
		"storage=100%&wait=%zz%4":  {"storage": "100%", "wait": "%zz%4"},
		"storage=%C3%BC&&wait=a=b": {"storage": "\u00fc", "wait": "a=b"},
		"st%6frage=1&nosuch=":      {"storage": "1"},
		"read_only=1&connection_pool_timeout=3&connection_historical_cache_size_bytes=1MB&database_name=x": {},
		"demostorage=0&demostorage=": {},
	} {
		if got, err := scheme.Parse(query); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, want)
		}
	}
	for query, want := range map[string]string{
		"stroage=1":            `unknown parameter "stroage" (known: storage, wait, `,
		"read-only=1":          "unknown",
		"Storage=1":            "unknown",
		"demostorage=1":        "demo:(BASE)/(CHANGES)",
		"demostorage=nonsense": "demo:(BASE)/(CHANGES)",
		" storage=1":           "unknown",
		"read_only%20wait=1":   "unknown",
	} {
		_, err := scheme.Parse(query)
		if bad := new(zodb.URLError); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
	dashes := Scheme{Taken: "cache_size", Dashes: true}
	if got, err := dashes.Parse("Cache-Size=1&database-name=x"); err != nil || got["cache_size"] != "1" {
		t.Errorf("with dashes: %v, %v", got, err)
	}
}

func TestValues(t *testing.T) {
	for s, want := range map[string]int{"1": 1, "yes": 1, "T": 1, "ON": 1, "0": 0, "f": 0, "no": 0, "7": 7, " 7 ": 7, "-1": -1} {
		if n, err := Int(s); err != nil || n != want {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "maybe", "2.5", "1e3"} {
		if _, err := Int(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
