package arrays_test

import (
	"slices"
	"strings"
	"testing"

	"wcfs/zcore/arrays"
)

// FuzzNames: every key has names that a file can have and that lead back to it, and no name is read as a key that has
// other names.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/b", "%", "%41", "x.json", ".json", "a.json/b", "\x00", "\xff\xfe", "é", strings.Repeat("y", 300), strings.Repeat("%", 100),
		strings.Repeat("中", 100), "%+", "a%+", strings.Repeat("a", 239) + "/b", strings.Repeat("a", 1000) + ".json", "%i5"} {
		f.Add(s, byte(0))
		f.Add(s, byte(1))
	}
	f.Fuzz(func(t *testing.T, text string, kind byte) {
		key := arrays.Key{Type: []byte{0, 'b', 'i', 'r', 'o'}[kind%5], Text: text}
		names := key.Names()
		for i, n := range names {
			if n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\x00") || len(n)+len(".json") > 255 {
				t.Fatalf("%q has the name %q", key, n)
			}
			if strings.HasSuffix(n, ".json") || strings.HasSuffix(n, "%+") != (i < len(names)-1) {
				t.Fatalf("%q has the names %q", key, names)
			}
		}
		if back, err := arrays.ParseKey(names...); err != nil || back != key {
			t.Fatalf("%q is read as %+v (%v), not %+v", names, back, err, key)
		}
		path := []arrays.Key{{Text: "first"}, key, {Text: "last"}}
		if back, rest, err := arrays.ParsePath(arrays.FormatPath(path)); err != nil || rest != nil || !slices.Equal(back, path) {
			t.Fatalf("%q is read as %+v %q (%v)", arrays.FormatPath(path), back, rest, err)
		}
		if key, err := arrays.ParseKey(text); err == nil && strings.Join(key.Names(), "/") != text {
			t.Fatalf("%q is read as %+v, whose names are %q", text, key, key.Names())
		}
	})
}
