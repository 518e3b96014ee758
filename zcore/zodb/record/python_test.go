package record

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"wcfs/t/py"
	"wcfs/zcore/zodb"
)

// TestOddPickles (db/14): whatever Python's picklers make of the values that records hold, at every protocol that ZODB
// has used, is read as ZODB's unpickler reads it.
func TestOddPickles(t *testing.T) {
	seed := time.Now().UnixNano() % 1e9
	t.Logf("seed %d", seed)
	for _, env := range []string{py.Py5, py.Py6} {
		out, err := py.Command(t, env, "odd_pickles.py", strconv.FormatInt(seed, 10), "3000").Output()
		if err != nil {
			t.Fatal(err)
		}
		var list [][3]string
		if err := json.Unmarshal(out, &list); err != nil || len(list) != 3000 {
			t.Fatalf("%d records (%v)", len(list), err)
		}
		for _, c := range list {
			data, err := hex.DecodeString(c[0])
			if err != nil {
				t.Fatal(err)
			}
			obj, err := Decode(1, zodb.Record{Data: data})
			if err != nil || obj.Class.String() != c[1] || showHex(obj.State) != c[2] {
				t.Errorf("%s, seed %d: %q\n is %s %s (%v)\nwant %s %s", env, seed, data, obj.Class, showHex(obj.State), err, c[1], c[2])
			}
		}
	}
}

// showHex is show as odd_pickles.py has it.
func showHex(v Value) string {
	switch v.Kind {
	case Bytes:
		return fmt.Sprintf("b%x", v.Data)
	case Text:
		return fmt.Sprintf("u%x", v.Data)
	case Ref:
		return fmt.Sprintf("ref(%d)", uint64(v.Int))
	case Tuple, List:
		var items []string
		for _, it := range v.Items {
			items = append(items, showHex(it))
		}
		s := strings.Join(items, " ")
		if v.Kind == List {
			return "[" + s + "]"
		}
		return "(" + s + ")"
	}
	return show(v)
}
