package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"wcfs/fusesrv"
	"wcfs/httpsrv"
	"wcfs/p9srv"
	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

// serveCmd is `wcfs serve`, and what the drop-in form ends up as.
type serveCmd struct {
	ZURL       string        `arg:"" optional:"" name:"zurl" help:"Database: file:///PATH, zeo://HOST:PORT, neo://CLUSTER@HOST:PORT, postgresql://..., sqlite:///PATH, demo:(BASE)/(CHANGES)."`
	Mount      string        `name:"mount" placeholder:"DIR" help:"Serve over FUSE at this empty directory."`
	Debug      bool          `help:"Serve .wcfs/debug/zhead, a stream of the transactions processed."`
	Autoexit   bool          `help:"Exit when no file of the mount has been open for a minute."`
	PinTimeout time.Duration `name:"pintimeout" default:"${pintimeout}" help:"Kill clients that do not acknowledge a pin within this time."`
	Tags       string        `name:"tags" placeholder:"FILE" help:"Lines of NAME and a tid or moment: @NAME is that revision, like @release-1."`
	Retention  time.Duration `name:"retention" default:"${retention}" help:"How far back from head a watch may begin, also at tids from before the server's start."`
	ReadAhead  int           `name:"read-ahead-kb" type:"kib" placeholder:"KB" help:"Raise the kernel's read-ahead for the mount; 1024 is good for sequential readers."`

	Slow time.Duration `default:"5s" help:"Log reads that wait for a client longer than this, with the client. 0: none."`

	OnFileChange string `name:"on-file-change" enum:"file,mount" default:"file" help:"What fails when a bigfile being served is deleted, or its block size, table or state is replaced: this file, or the mount for all."`

	OnFailure string `name:"on-failure" enum:"stay,exit" default:"stay" help:"What follows when nothing can be served any more: stay, so that every access is an error, or exit with code 1, the mount taken away."`

	AnyKernel bool `help:"Serve also on a kernel that is older than what wcfs needs, by its release."`

	HTTP string `name:"http" placeholder:"ADDR" help:"Serve metrics, a health check, profiles and a page for people at HOST:PORT of this host, unix:PATH, or tls:HOST:PORT with the certificates of 9P."`

	DebugAddr string `name:"debug-addr" placeholder:"HOST:PORT" help:"Serve profiles of this process (pprof) at this loopback address."`

	Config      string `placeholder:"FILE" help:"Take options from this TOML file: their names without dashes are its keys, and zurl is the database."`
	PrintConfig bool   `help:"Print the options with their values, and where they are from, as such a file; serve nothing."`

	Daemon    bool   `help:"Go to the background, and return when the tree is served."`
	LogFormat string `name:"log-format" enum:"text,json,journal" default:"text" help:"Lines of the log: text, json, or journal, which has priorities for systemd's journal and no time."`

	LogFile string `placeholder:"FILE" help:"Append the log to this file instead of writing it to stderr."`

	boundOptions
	accessOptions
	storageOptions
	nineOptions

	dropIn   bool // access as existing clients count on it
	usedHere bool // this process itself reads the mount, as the demo does
}

// boundOptions bound what one client may have of the server.
type boundOptions struct {
	PinWindow  int `name:"pin-window" type:"count" default:"${pin_window}" help:"Pins sent to a client that it has not acknowledged yet; others wait for these."`
	MaxLinks   int `name:"max-watch-links" type:"count" default:"${max_links}" help:"Watch links that one process, or one guest, may have open."`
	MaxWaiting int `name:"max-watch-requests" type:"count" default:"${max_waiting}" help:"Watch requests that one process, or one guest, may have under way."`
	HistoryMB  int `name:"max-history-mb" type:"mib" default:"${history_mib}" help:"Memory for the commits since the oldest watch, MiB. The oldest watches end when they need more."`
	MaxBases   int `name:"max-bases" type:"count" default:"${max_bases}" help:"Files under bases that may be read by one guest, or through the mount."`
}

// The values of --on-file-change.
const (
	changeEndsFile = "file"
	changeEndsAll  = "mount"
)

// onFailureExit is the value of --on-failure that ends the process.
const onFailureExit = "exit"

// Run is `wcfs serve`.
func (c *serveCmd) Run(p *program, k *kong.Context, set *settings) error {
	if c.ZURL == "" {
		c.ZURL = set.zurl()
	}
	if c.ZURL == "" {
		return usagef("no database: give ZURL, or %s in a file for --config (see `wcfs serve --help`)", zurlKey)
	}
	if c.PrintConfig {
		return set.print(p, k, c.ZURL)
	}
	return c.serve(p)
}

// serve serves until a signal, an unmount from outside, or autoexit.
func (c *serveCmd) serve(p *program) error {
	if c.Mount == "" && len(c.P9.Addr) == 0 {
		return usagef("nothing to serve at: give --mount DIR or --9p ADDR")
	}
	if err := c.checkTLS(c.HTTP); err != nil {
		return err
	}
	if _, err := c.access(c.dropIn); err != nil {
		return err
	}
	if c.Daemon {
		return c.daemonize(p)
	}
	if c.LogFile != "" {
		if err := c.openLog(); err != nil {
			return err
		}
	}
	p.logFormat = c.LogFormat
	p.newLogger(p.level.Level() == slog.LevelDebug)
	p.signals = p.handleSignals()
	defer p.signals.stop()
	s, err := c.start(p)
	if err != nil {
		return p.interrupted(err)
	}
	stopping := s.notifyReady(c.where(s))
	err = s.wait(p.ctx)
	stopping()
	err = errors.Join(err, s.close())
	if failure := s.core.Err(); failure != nil { // it may have been told to end since
		err = errors.Join(fmt.Errorf("the service had failed: %w", failure), err)
	}
	return err
}

// where tells what is served and at which places.
func (c *serveCmd) where(s *server) string {
	at := s.bound
	if s.mount != nil {
		at = append([]string{s.mount.Dir()}, at...)
	}
	return c.ZURL + " at " + strings.Join(at, ", ")
}

// server is one core with its fronts.
type server struct {
	p    *program
	stor zodb.Storage
	core *zcore.Core
	tree *tree.FS

	mount *fusesrv.Server // nil without --mount
	nine  *p9srv.Server   // nil without --9p
	bound []string        // where it listens

	web       *httpsrv.Server // nil without --http
	webURL    string
	stopDebug func() // nil without --debug-addr
	stopRun   context.CancelFunc
	runDone   chan error // gets what core.Run returned
	autoexit  bool
	onFailure string // as the option
}

// start opens the database and serves it; when it returns, the server is ready.
func (c *serveCmd) start(p *program) (_ *server, err error) {
	s := &server{p: p, autoexit: c.Autoexit, onFailure: c.OnFailure, runDone: make(chan error, 1), stopRun: func() {}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	p.log.Info("starting", "version", version())
	if c.DebugAddr != "" {
		var at string
		if s.stopDebug, at, err = p.listenDebug(c.DebugAddr); err != nil {
			return nil, err
		}
		p.log.Info("serving profiles", "url", "http://"+at+"/debug/pprof/")
	}
	if s.stor, err = openStorage(p.ctx, c.ZURL, &c.storageOptions); err != nil {
		return nil, err
	}
	s.core, err = zcore.New(p.ctx, s.stor, zcore.Options{
		PinTimeout: c.PinTimeout, Retention: c.Retention,
		PinWindow: c.PinWindow, MaxLinks: c.MaxLinks, MaxWaiting: c.MaxWaiting, MaxBases: c.MaxBases, ListBytes: c.HistoryMB << 20,
		FileChangeEndsAll: c.OnFileChange == changeEndsAll, Slow: c.Slow, Log: p.log,
	})
	if err != nil {
		return nil, err
	}
	s.tree = tree.New(s.core, tree.Options{
		AllFails: c.dropIn, OldNames: c.dropIn, Arrays: !c.dropIn, Tag: tagsOf(c.Tags), Debug: c.Debug, MoreStats: s.moreStats, Version: version(),
	})
	if len(c.P9.Addr) > 0 {
		if err = c.listen(s); err != nil {
			return nil, err
		}
	}
	if c.HTTP != "" {
		if err = c.serveHTTP(s); err != nil {
			return nil, err
		}
	}
	if c.Mount != "" {
		var access fusesrv.Access
		if access, err = c.access(c.dropIn); err != nil {
			return nil, err
		}
		s.mount, err = fusesrv.Mount(p.ctx, s.tree.Root(), c.Mount, fusesrv.Options{
			URL: c.ZURL, Domain: s.core.Host(), Attach: s.core.SetPageCache, ReadAheadKB: c.ReadAhead, AnyKernel: c.AnyKernel,
			Access: access, KeepBusy: c.dropIn, Standalone: !c.usedHere, Log: p.log,
		})
		if err != nil {
			return nil, err
		}
		p.log.Info("serving", "url", c.ZURL, "mount", s.mount.Dir(), "head", s.core.Head())
	}
	s.follow()
	return s, nil
}

// follow starts following the database. When that fails for good the process goes on, so that every
// access to the mount is an error, rather than stale or some other file system's data.
func (s *server) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopRun = cancel
	go func() { s.runDone <- s.core.Run(ctx) }()
	if s.mount == nil {
		return
	}
	go func() { // at once: Run may be held up by a database that does not answer
		select {
		case <-s.core.Failed():
			s.mount.SetDisconnected()
		case <-ctx.Done():
		}
	}()
}

// wait returns nil when the server is to end: a signal, an unmount, autoexit.
func (s *server) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.onFailure == onFailureExit {
		go func() {
			select {
			case <-s.core.Failed():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	if s.mount == nil {
		<-ctx.Done()
		return nil
	}
	if s.autoexit {
		go func() {
			if s.mount.Idle(ctx, fusesrv.AutoexitAfter) == nil {
				cancel()
			}
		}()
	}
	if err := s.mount.Wait(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// closeTimeout is how long a busy host may take to let a server go; on others it is a matter of milliseconds.
const closeTimeout = 20 * time.Second

// close ends what start began, in the reverse order.
func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	if s.web != nil {
		s.web.Close()
	}
	if s.mount != nil {
		err := s.mount.Close(ctx)
		if errors.Is(err, fusesrv.ErrBusy) { // so it is meant
			s.p.log.Warn("ending", "cause", err)
			err = nil
		}
		if err != nil && !errors.Is(err, fusesrv.ErrAborted) {
			errs = append(errs, fmt.Errorf("unmount: %w", err))
		}
	}
	if s.nine != nil {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.nine.Close()
		}()
		select {
		case <-closed:
		case <-ctx.Done():
		}
	}
	s.stopRun()
	if s.core != nil {
		select {
		case <-s.runDone:
		case <-ctx.Done():
		}
	}
	if s.stor != nil {
		s.stor.Close()
	}
	if s.stopDebug != nil {
		s.stopDebug()
	}
	return errors.Join(errs...)
}
