package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/t/bench/kit"
)

// spliceArg makes this program the bare FUSE server: `bench splice FILE MNT`.
const spliceArg = "splice"

// bareFile answers READ by splicing from a plain file: as little as a FUSE server can do.
type bareFile struct {
	fs.Inode
	f    *os.File
	size uint64
}

var (
	_ fs.NodeOpener    = (*bareFile)(nil)
	_ fs.NodeReader    = (*bareFile)(nil)
	_ fs.NodeGetattrer = (*bareFile)(nil)
)

func (n *bareFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *bareFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = 0o444, n.size, kit.Blksize
	return 0
}

func (n *bareFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	size := min(int64(len(dest)), int64(n.size)-off)
	return fuse.ReadResultFd(n.f.Fd(), off, int(max(size, 0))), 0
}

// spliceMain serves until SIGTERM. The mount options are those of wcfs, but for the splicing.
func spliceMain(args []string) {
	f, err := os.Open(args[0])
	if err == nil {
		err = bareServe(f, args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare server:", err)
		os.Exit(1)
	}
}

func bareServe(f *os.File, mnt string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	root := &fs.Inode{}
	day := 24 * time.Hour
	opts := &fs.Options{EntryTimeout: &day}
	opts.MountOptions = fuse.MountOptions{
		MaxBackground: 4096, MaxWrite: 1 << 20, ExplicitDataCacheControl: true, DirectMount: true,
		DisableXAttrs: true, FsName: "bare", Name: "bare",
	}
	opts.OnAdd = func(ctx context.Context) {
		node := root.NewPersistentInode(ctx, &bareFile{f: f, size: uint64(st.Size())}, fs.StableAttr{Mode: fuse.S_IFREG})
		root.AddChild("file", node, false)
	}
	srv, err := fs.Mount(mnt, root, opts)
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, os.Interrupt)
	<-term
	return srv.Unmount()
}
