package client_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zdata"
)

// The examples of docs/clients.md, as written.
func TestDocs(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at, sum := w.db.Head(), 0
	for blk := range zdata.Blk(3) {
		for _, b := range w.db.Data(w.f, blk, at) {
			sum += int(b)
		}
	}
	text, err := os.ReadFile(filepath.Join(py.Root(), "docs/clients.md"))
	if err != nil {
		t.Fatal(err)
	}
	c := filepath.Join(py.Root(), "zcore/client/c")
	want := map[string]string{
		"c": fmt.Sprintf("@%s: 24576 bytes, sum %d\n", at, sum), "cpp": fmt.Sprintf("sum %d\n", sum),
		"python": fmt.Sprintf("@%s: 24576 bytes, sum %d\n", at, sum), "go": fmt.Sprintf("@%s: 24576 bytes, sum %d\n", at, sum),
	}
	for _, m := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		lang, dir := m[1], t.TempDir()
		src, bin := filepath.Join(dir, "example."+strings.Replace(lang, "python", "py", 1)), filepath.Join(dir, "example")
		if err := os.WriteFile(src, []byte(m[2]), 0o666); err != nil {
			t.Fatal(err)
		}
		run := exec.Command(bin, w.mnt, w.f.String())
		if lang == "python" {
			run = exec.Command(python(), src, w.mnt, w.f.String())
		}
		run.Env = append(os.Environ(), "LD_LIBRARY_PATH="+built.dir, "PYTHONPATH="+c, "PYTHONDONTWRITEBYTECODE=1",
			"WCFS_LIB="+filepath.Join(built.dir, "libwcfs.so"))
		var build *exec.Cmd
		switch lang {
		case "c":
			build = exec.Command("gcc", "-Wall", "-Werror", "-I", c, "-o", bin, src, "-L", built.dir, "-lwcfs", "-pthread")
		case "cpp":
			build = exec.Command("g++", "-Wall", "-Werror", "-I", c, "-o", bin, src, "-L", built.dir, "-lwcfs", "-pthread")
		case "go":
			build = exec.Command("go", "build", "-o", bin, src)
		}
		if build != nil {
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", lang, err, out)
				continue
			}
		}
		out, err := run.CombinedOutput()
		if err != nil || string(out) != want[lang] {
			t.Errorf("%s: %q, %v; want %q", lang, out, err, want[lang])
		}
		delete(want, lang)
	}
	if len(want) != 0 {
		t.Errorf("no examples for %v", want)
	}
}
