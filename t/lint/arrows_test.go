// Package lint keeps the rules of the project that no compiler knows: who may import whom, and what may
// not be in a file.
package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is this module's path, which its owner may change.
var module = func() string {
	out, err := exec.Command("go", "list", "-m").Output()
	if err != nil {
		panic(fmt.Sprintf("go list -m: %v", err))
	}
	return strings.TrimSpace(string(out))
}()

// arrows says which packages of the project a package may import, by prefix; the first rule that names
// the package counts. Tests may import what they like.
var arrows = []struct {
	pkg string
	may []string
}{
	{"zcore/zodb/demostorage", []string{"zcore/zodb"}}, // over any two drivers, which it is passed
	{"zcore/zodb/storagetest", []string{"zcore/zodb", "t/wait"}},
	{"zcore/zodb", []string{"zcore/zodb"}}, // drivers, btree, records: nothing above
	{"zcore/zdata", []string{"zcore/zdata", "zcore/zodb"}},
	{"zcore/arrays", []string{"zcore/zodb"}},
	{"zcore/history", []string{"zcore/history", "zcore/zdata", "zcore/zodb"}},
	{"zcore/watchproto", []string{"zcore/zodb", "zcore/zdata"}},
	{"zcore/client", []string{"zcore/client", "zcore/watchproto", "zcore/zodb", "zcore/zdata"}},
	{"zcore/tree/treetest/fixture", []string{"zcore/tree/treetest", "zcore/zdata", "zcore/zodb"}},
	{"zcore/tree/treetest", []string{"zcore/zodb"}}, // light: it is carried into guests
	{"zcore/tree", []string{"zcore/tree", "zcore", "zcore/arrays", "zcore/zodb"}},
	{"zcore", []string{"zcore/history", "zcore/watchproto", "zcore/zdata", "zcore/zodb"}},
	{"fusesrv", []string{"fusesrv", "zcore", "zcore/tree", "zcore/zodb"}},
	{"p9srv", []string{"p9srv", "zcore", "zcore/tree", "zcore/zodb"}},
	{"qemu/qemutest", []string{"qemu", "t/wait"}},
	{"httpsrv", []string{"zcore", "zcore/history", "zcore/zdata", "zcore/zodb"}},
	{"qemu", []string{"qemu"}},
	{"t", []string{""}},
	{"", []string{"fusesrv", "p9srv", "httpsrv", "qemu", "zcore"}},
}

// outside says who alone may import a package that is not ours, by prefix.
var outside = map[string][]string{
	"github.com/hanwen/go-fuse":    {"fusesrv", "t"},
	"github.com/hugelgupf/p9":      {"p9srv", "t"},
	"github.com/jackc/pgx":         {"zcore/zodb/relstorage", "t"},
	"modernc.org/sqlite":           {"zcore/zodb/relstorage", "t"},
	"github.com/kisielk/og-rek":    {"zcore/zodb", "t"},
	"github.com/vmihailenco":       {"zcore/zodb/zeo", "zcore/zodb/neo", "t"},
	"github.com/fsnotify":          {"zcore/zodb/filestorage", "t"},
	"charm.land":                   {""},
	"github.com/alecthomas/kong":   {""},
	"github.com/BurntSushi/toml":   {""},
	"github.com/coreos/go-systemd": {""},
	"github.com/prometheus":        {"httpsrv"},
}

type goPackage struct {
	ImportPath, Name                   string
	Imports, TestImports, XTestImports []string
}

func TestArrows(t *testing.T) {
	pkgs := listPackages(t)
	if len(pkgs) < 5 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	for _, p := range pkgs {
		pkg := own(p.ImportPath)
		for _, imp := range p.Imports {
			if why := forbidden(pkg, imp); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if imp == module {
				t.Errorf("a test of %s imports main", p.ImportPath)
			}
		}
	}
}

// The rules must be able to fail.
func TestForbidden(t *testing.T) {
	for _, c := range [][2]string{
		{"fusesrv", module + "/p9srv"}, {"zcore", module + "/zcore/tree"}, {"zcore/tree", "github.com/hanwen/go-fuse/v2/fuse"},
		{"zcore/history", module + "/zcore"}, {"zcore/zodb/btree", module + "/zcore/zdata"}, {"p9srv", module + "/t/py"},
		{"zcore/client", module + "/zcore"}, {"qemu", module + "/zcore"}, {"zcore/tree", module},
	} {
		if forbidden(c[0], c[1]) == "" {
			t.Errorf("%s may import %s", c[0], c[1])
		}
	}
}

// forbidden tells why pkg, a path below the module, must not import imp; "" if it may.
func forbidden(pkg, imp string) string {
	if imp == module {
		return "nothing imports main"
	}
	if !strings.HasPrefix(imp, module+"/") {
		for prefix, who := range outside {
			if under(imp, prefix) && !slices.ContainsFunc(who, func(w string) bool { return pkg == w || w != "" && under(pkg, w) }) {
				return "only these may: " + strings.Join(who, ", ")
			}
		}
		return ""
	}
	target := own(imp)
	for _, rule := range arrows {
		if !under(pkg, rule.pkg) {
			continue
		}
		for _, may := range rule.may {
			// "zcore" alone is that package; what is below it is named where it is allowed
			if target == may || may != "zcore" && under(target, may) || pkg == "" && under(target, may) {
				return ""
			}
		}
		return "it may import " + strings.Join(rule.may, ", ")
	}
	return "no rule for it"
}

// own is the path below the module.
func own(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func under(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []goPackage
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
