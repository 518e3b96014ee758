package httpsrv

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"wcfs/zcore"
)

// keys are the names that a value of a type has as JSON.
func keys(typ reflect.Type, found map[string]bool) {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		keys(typ.Elem(), found)
	case reflect.Struct:
		if typ == reflect.TypeFor[time.Time]() || typ == reflect.TypeFor[zcore.Stats]() { // Stats has the names of .wcfs/stats
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				found[name] = true
			} else if f.IsExported() && !f.Anonymous {
				found[f.Name] = true
			}
			if f.IsExported() {
				keys(f.Type, found)
			}
		}
	}
}

// What scripts may rely on is on the page for them, name by name.
func TestScriptingPage(t *testing.T) {
	text, err := os.ReadFile("../docs/scripting.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	keys(reflect.TypeFor[Look](), found)
	if len(found) < 60 {
		t.Errorf("%d keys found", len(found))
	}
	for name := range found {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/scripting.md does not have `%s`", name)
		}
	}
}
