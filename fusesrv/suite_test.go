package fusesrv_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/fusesrv"
	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb/memstorage"
)

// TestSuite runs the tree's suite over a mount of the real core.
func TestSuite(t *testing.T) {
	stor := memstorage.New()
	db, err := fixture.Make(stor)
	if err != nil {
		t.Fatal(err)
	}
	core, err := zcore.New(t.Context(), stor, zcore.Options{PinTimeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	fs := tree.New(core, tree.Options{Debug: true, BlankEvery: 10 * time.Millisecond})
	dir := t.TempDir()
	srv, err := fusesrv.Mount(t.Context(), fs.Root(), dir, fusesrv.Options{URL: core.URL(), Domain: core.Host()})
	if err != nil {
		t.Fatal(err)
	}
	core.SetPageCache(srv)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- core.Run(ctx) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(srv.Close(ctx), srv.Wait(ctx)); err != nil {
			t.Error(err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		stop()
		<-ended
		if _, err := os.Stat(dir + "/head"); err == nil {
			t.Error("still mounted")
		}
	})
	treetest.Run(t, &treetest.Env{
		FS:       treetest.Path{Dir: dir},
		Manifest: fixture.Manifest(db, core.URL(), "1.5", true),
	})
}
