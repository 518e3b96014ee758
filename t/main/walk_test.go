package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"wcfs/t/served"
)

// Programs that read whole trees come to an end over a mount, and over head/watch.
func TestWholeTree(t *testing.T) {
	zurl, db := database(t)
	for _, args := range [][]string{{"serve", "--mount"}, {}} {
		mnt := t.TempDir()
		line := append(args, mnt, zurl)
		if len(args) == 0 {
			line = []string{zurl, mnt}
		}
		p := serve(t, mnt, line...)
		for _, f := range db.Files(db.Head()) { // files are in the tree once they were looked up
			if _, err := os.Stat(filepath.Join(mnt, "head/bigfile", f.String())); err != nil {
				t.Fatal(err)
			}
		}
		for _, cmd := range []string{
			"tar cf - . | tar tf - | grep -c bigfile/0",
			"grep -r 'no such text' . ; test $? = 1",
			"find . -type f | xargs md5sum",
			"find . -type f -exec cat {} + >/dev/null",
			"du -a . >/dev/null",
			"cp -r . $(mktemp -d -p $TMPDIR)",
			"cat head/watch head/watch9",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), served.Patience)
			sh := exec.CommandContext(ctx, "sh", "-c", cmd)
			sh.Dir, sh.WaitDelay = mnt, time.Second
			sh.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
			if out, err := sh.CombinedOutput(); err != nil || ctx.Err() != nil {
				t.Errorf("%s: %v, %v\n%s", cmd, err, ctx.Err(), out)
			}
			cancel()
		}
		p.End()
	}
}
