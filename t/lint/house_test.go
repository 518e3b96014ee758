package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// house maps packages to their nodes in docs/house.dot; what is not named here is not in the picture.
var house = map[string]string{
	"fusesrv": "fusesrv", "p9srv": "p9srv", "httpsrv": "httpsrv", "qemu": "qemu", "zcore": "zcore", "zcore/tree": "tree", "zcore/arrays": "arrays", "zcore/history": "history",
	"zcore/watchproto": "watchproto", "zcore/zdata": "zdata", "zcore/client": "client", "zcore/zodb": "zodb", "zcore/zodb/btree": "btree",
	"zcore/zodb/record": "record", "zcore/zodb/filestorage": "drivers", "zcore/zodb/zeo": "drivers", "zcore/zodb/neo": "drivers",
	"zcore/zodb/relstorage": "drivers", "zcore/zodb/demostorage": "drivers",
}

// TestHouse compares the arrows of docs/house.dot with the imports. Everything may use the types of zcore/zodb:
// those arrows are drawn only where there is no other.
func TestHouse(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repoRoot(t), "docs/house.dot"))
	if err != nil {
		t.Fatal(err)
	}
	var drawn, real []string
	for _, m := range regexp.MustCompile(`(?m)^ *(\w+) -> (\w+)$`).FindAllStringSubmatch(string(text), -1) {
		drawn = append(drawn, m[1]+" -> "+m[2])
	}
	for _, p := range listPackages(t) {
		from := house[own(p.ImportPath)]
		for _, imp := range p.Imports {
			to := house[own(imp)]
			if !strings.HasPrefix(imp, module+"/") || from == "" || to == "" || from == to {
				continue
			}
			if arrow := from + " -> " + to; (to != "zodb" || from == "drivers" || from == "record") && !slices.Contains(real, arrow) {
				real = append(real, arrow)
			}
		}
	}
	slices.Sort(drawn)
	slices.Sort(real)
	if len(real) < 10 || !slices.Equal(drawn, real) {
		t.Errorf("docs/house.dot draws\n%s\nthe packages import\n%s", strings.Join(drawn, "\n"), strings.Join(real, "\n"))
	}
}
