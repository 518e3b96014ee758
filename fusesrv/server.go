// Package fusesrv serves a tree (package tree) over FUSE, and is the core's hand on the kernel's page
// cache of it.
//
// It owns the mount, the table of inodes the kernel knows, open files, what of a file the kernel may
// cache and for how long, interrupts, and the processes behind watch links. It does not own names,
// data, revisions or pins: it calls the tree and does what the core asks of the page cache.
//
// Invariants:
//   - A node is in the table, with one reference to it, exactly while the kernel knows it. FUSE node ids are inode numbers of the tree (the root excepted, which is 1), so
//     they are never reused.
//   - No handler talks to the kernel. Notifications go out from the core's commit path, from
//     SetDisconnected and from the pruner, none of which holds a lock of this package while doing so.
//   - A READ of a bigfile is never answered by EINTR unless its caller is being killed.
//   - Data.Done is called once for every answered READ, after the reply was written.
//   - The server holds no file, working directory or mapping inside its mount.
//
// The data cache is controlled explicitly (FUSE_EXPLICIT_INVAL_DATA): nothing is dropped but by
// notification or by the kernel's need of memory. Names stay cached for a day, since an inode whose
// name the kernel drops takes its page cache along; revisions that nobody uses are pruned instead.
//
// Lock order: all mutexes of this package are leaves; nothing is called under them.
package fusesrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// Options of a mount; the zero value of each field means its default.
type Options struct {
	URL    string        // database URL: the source of the mount entry, verbatim
	Domain *zcore.Domain // whose watches readers of this mount depend on

	Access Access // which users the mount serves; default Private

	// MaxBackground is how many READs of read-ahead may be under way at once; default 4096. It must be
	// more than the number of readers that may wait for pins, or these stall all others.
	MaxBackground int

	// ReadAheadKB, when not 0, changes the kernel's read-ahead for this mount. Leave it alone for
	// existing clients: they count on pages next to what they read not being there.
	ReadAheadKB int

	// MaxIdleRevs is how many @<tid> directories the kernel may keep without an open file; default 4096.
	MaxIdleRevs int

	// Attach, when not nil, is called with the page cache before the first request is answered: the
	// place for Core.SetPageCache.
	Attach func(zcore.PageCache)

	// KeepBusy has Close leave a mount that is in use where it is, for whoever started the server to deal with; it
	// is dead when the process has ended.
	KeepBusy bool

	// AnyKernel serves also where only the kernel's release speaks against it.
	AnyKernel bool

	// Standalone is for a process that only serves, and whose main calls Helper: it never touches its
	// mount itself, not even by a file that some part of it opens. Then what must be looked at is looked
	// at by a child, and a SIGKILL at any time ends the process and all that wait for it. Else one in
	// the midst of such a look leaves a process that waits for itself for ever.
	Standalone bool

	Log *slog.Logger // default slog.Default()
}

// ErrAborted is what Wait returns when the connection was aborted: the mount entry is still there,
// and every access to it fails with ENOTCONN.
var ErrAborted = errors.New("FUSE connection was aborted")

// Server is one mount being served.
type Server struct {
	dir  string // absolute, without symbolic links; immutable
	dev  uint32 // minor device number of the mount, and id of the FUSE connection; immutable
	opts Options
	log  *slog.Logger
	fs   *fileSystem
	fuse *fuse.Server

	looker       *looker
	stopWatchdog func()        // ends the child
	maxWrite     int           // most bytes in one notification; immutable
	devFuse      int           // own duplicate of /dev/fuse; guard: devMu; -1 when closed
	done         chan struct{} // closed when serving has ended
	err          error         // why it has; written before done is closed

	devMu      sync.Mutex
	disconnect sync.Once
}

var _ zcore.PageCache = (*Server)(nil)

// Mount mounts root at dir and serves it until it is unmounted; .wcfs/zurl can be opened when Mount
// has returned. Errors say what to do. ctx is for the mounting alone.
func Mount(ctx context.Context, root tree.Node, dir string, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.Access.Check(); err != nil {
		return nil, err
	}
	dir, err := prepareMountPoint(ctx, dir, opts.Log)
	if err != nil {
		return nil, err
	}
	fd, others, err := mountFuse(mountHow{dir, opts.URL, opts.Access})
	if err != nil {
		return nil, err
	}
	if !others && opts.Access.Others != OthersNever {
		opts.Log.Info("the mount serves this user alone, not even root: user_allow_other in /etc/fuse.conf would let root look", "dir", dir)
	}
	s, err := serve(root, dir, fd, opts)
	if err != nil {
		detach(dir)
		return nil, err
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.MaxBackground <= 0 {
		o.MaxBackground = 4096
	}
	if o.MaxIdleRevs <= 0 {
		o.MaxIdleRevs = 4096
	}
	if o.Access.isZero() {
		o.Access = Private()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// serve takes over fd, a /dev/fuse that is mounted at dir.
func serve(root tree.Node, dir string, fd int, opts Options) (*Server, error) {
	s := &Server{
		dir: dir, opts: opts, log: opts.Log,
		done:         make(chan struct{}),
		fs:           newFileSystem(root, opts),
		looker:       newLooker(!opts.Standalone),
		stopWatchdog: func() {},
	}
	var err error
	if s.devFuse, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount %s: dup of /dev/fuse: %w", dir, err)
	}
	s.fs.dead = s.connectionDead
	mopts := &fuse.MountOptions{
		MaxBackground:            opts.MaxBackground,
		MaxWrite:                 1 << 20,
		ExplicitDataCacheControl: true,
		DisableXAttrs:            true,
		DisableReadDirPlus:       true,
		DisableSplice:            true,
		Logger:                   slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
		PanicHandler:             s.panicked,
	}
	// The mount is there already, so go-fuse gets only the descriptor, which it owns from now on.
	s.fuse, err = fuse.NewServer(s.fs, fmt.Sprintf("/dev/fd/%d", fd), mopts)
	if err == nil {
		err = checkKernel(s.fuse, opts)
	}
	var m *mountEntry
	if err == nil {
		m, err = findMount(dir)
	}
	if err != nil {
		unix.Close(s.devFuse)
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s.dev = m.minor
	s.maxWrite = min(mopts.MaxWrite, maxWrite())
	if opts.ReadAheadKB != 0 {
		if err := setReadAhead(s.dev, opts.ReadAheadKB); err != nil {
			opts.Log.Warn("read-ahead stays as it is", "dir", dir, "err", err)
		}
	}
	if opts.Standalone {
		if err := watchdogCan(s.dev); err != nil {
			opts.Log.Warn("should this server be killed, programs that use the mount may wait for ever: its watchdog cannot end the connection",
				"dir", dir, "cause", err)
		}
		if s.stopWatchdog, err = startWatchdog(dir, s.dev); err != nil {
			unix.Close(s.devFuse)
			return nil, fmt.Errorf("mount %s: start helper process: %w", dir, err)
		}
	}
	if opts.Attach != nil {
		opts.Attach(s)
	}
	pruned := make(chan struct{})
	go func() {
		defer close(pruned)
		s.prune()
	}()
	go s.serveLoop(pruned)
	if opts.Standalone {
		return s, nil // nobody here needs what follows
	}
	if err := refusePoll(dir); err != nil {
		opts.Log.Warn("the mount may hang Go programs that use it from the process that serves it", "dir", dir, "err", err)
	}
	return s, nil
}

// refusePoll has the kernel learn that there is no poll(2) here, by a file that go-fuse has for that.
// Else it would be asked when Go's runtime adds a file of this mount to its epoll set: with no thread
// left for the answer, should the program be the one that serves it.
func refusePoll(dir string) error {
	fd, err := unix.Open(dir+"/.go-fuse-epoll-hack", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

func (s *Server) serveLoop(pruned <-chan struct{}) {
	s.fuse.Serve()
	s.fs.stopAll() // whoever still runs for this mount
	s.fs.closeAll()
	s.devMu.Lock()
	unix.Close(s.devFuse)
	s.devFuse = -1
	s.devMu.Unlock()
	<-pruned
	s.looker.close()
	s.stopWatchdog()
	if mountedAs(s.dir, s.dev) {
		s.err = fmt.Errorf("%s: %w", s.dir, ErrAborted)
	}
	close(s.done)
}

// connectionDead tells whether the kernel will take no more answers.
func (s *Server) connectionDead() bool {
	s.devMu.Lock()
	defer s.devMu.Unlock()
	if s.devFuse < 0 {
		return true
	}
	p := []unix.PollFd{{Fd: int32(s.devFuse)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}

func (s *Server) panicked(v any) fuse.Status {
	s.log.Error("panic in a request; it is answered by EIO", "panic", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

// Dir returns the mount point: absolute, without symbolic links.
func (s *Server) Dir() string { return s.dir }

// Done is closed when serving has ended: after an unmount, or when the connection was aborted.
func (s *Server) Done() <-chan struct{} { return s.done }

// Wait waits for Done. It returns nil after an unmount, ErrAborted when the mount entry is still there,
// or ctx's error.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unmount unmounts; with files still open it fails with EBUSY at once, and serving goes on.
func (s *Server) Unmount() error {
	if !s.Mounted() {
		return nil
	}
	if err := unmount(s.dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return nil
}

// Opens tells how many files are open now, and whether there ever was one.
func (s *Server) Opens() (now int64, ever bool) {
	return s.fs.files.now.Load(), s.fs.files.ever.Load()
}

// Inodes tells how many inodes the kernel holds.
func (s *Server) Inodes() int { return s.fs.inodes.len() }

func setReadAhead(minor uint32, kb int) error {
	return os.WriteFile(fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", minor), fmt.Appendf(nil, "%d", kb), 0)
}

// gate lets requests in until it is shut; then all their contexts end.
type gate struct {
	shut     chan struct{}
	once     sync.Once
	inFlight atomic.Int64
}

func (g *gate) close() { g.once.Do(func() { close(g.shut) }) }

func (g *gate) closed() bool {
	select {
	case <-g.shut:
		return true
	default:
		return false
	}
}
