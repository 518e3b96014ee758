// Command wcfs serves the bigfiles of a ZODB database as files, over FUSE and 9P.
//
// This package is only wiring: one file a subcommand. They share main.go (start), exit.go (exit codes), storage.go
// (flags of database URLs), target.go with p9target.go and zodbtarget.go (what ls, stat and cat look at). serve.go
// uses p9.go for the 9P front, and debug.go.
//
// There are two forms of use. `wcfs SUBCOMMAND ...` has --long options. `wcfs [options] ZURL MNT` is
// the form that existing clients start; it is meant whenever the first argument is no subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"wcfs/fusesrv"
)

// program is what a subcommand runs in.
type program struct {
	ctx    context.Context // done at SIGINT or SIGTERM
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
	level  slog.LevelVar // of log
	flush  func()        // writes out what is left of the log

	logFormat string // "" is text

	args    []string       // of the command line
	verbose int            // how many -v
	signals *serverSignals // nil where no server runs
}

// cli is all subcommands.
type cli struct {
	Verbose int `short:"v" type:"counter" help:"Log more; for run: show the kernel's console, -vv everything."`

	Serve   serveCmd   `cmd:"" help:"Serve a database over FUSE, 9P or both."`
	Status  statusCmd  `cmd:"" help:"Tell whether a mount or 9P address answers, and what it serves."`
	Wait    waitCmd    `cmd:"" help:"Wait until a mount or 9P address serves, and its head has come to a transaction."`
	Top     topCmd     `cmd:"" help:"Show clients by what they make others wait for, bigfiles, database and head, as they change."`
	Stop    stopCmd    `cmd:"" help:"Unmount, and end the server, by force if need be."`
	Ls      lsCmd      `cmd:"" help:"List a directory of the tree."`
	Stat    statCmd    `cmd:"" help:"Show attributes of a file of the tree."`
	Cat     catCmd     `cmd:"" help:"Write a file of the tree to stdout."`
	Watch   watchCmd   `cmd:"" help:"Print the pins that a client of a mounted bigfile gets."`
	History historyCmd `cmd:"" help:"Show which block of a bigfile changed at which transaction."`
	Log     logCmd     `cmd:"" help:"List the transactions of a database."`
	Dial    dialCmd    `cmd:"" help:"Carry local 9P connections through TLS to a server."`
	Run     runCmd     `cmd:"" help:"Boot a guest on this host's root and run a program in it."`
	Bench   benchCmd   `cmd:"" help:"Measure how fast a bigfile of yours is read."`
	Demo    demoCmd    `cmd:"" help:"Serve a small database that changes once a second, and show what happens."`
	Version versionCmd `cmd:"" help:"Print the version, the commit it was built from, and the Go release."`

	Completion completionCmd `cmd:"" help:"Print a script by which bash, zsh or fish completes wcfs."`
	Manual     manualCmd     `cmd:"" hidden:"" help:"Write the manual pages."`
}

func main() {
	fusesrv.Helper()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// Ending takes a moment, in which the same signal may come again (make passes it on); if ending hangs,
	// another one is to end it at once.
	context.AfterFunc(ctx, func() { time.AfterFunc(2*time.Second, stop) })
	command := run
	if isMountHelper(os.Args[0]) {
		command = runMountHelper
	}
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	p := &program{ctx: ctx, stdout: stdout, stderr: stderr, args: args, flush: func() {}}
	defer func() { p.flush() }()
	set, err := loadSettings(args)
	if err != nil {
		return p.report(err)
	}
	var c cli
	parser, err := newParser(&c, stdout, stderr, set)
	if err != nil {
		return p.report(err)
	}
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		args[0] = "version"
	}
	if len(args) == 0 || !isSubcommand(parser, args[0]) {
		return p.report(p.dropIn(parser, args))
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		return p.report(usagef("%v (see `wcfs %s --help`)", err, args[0]))
	}
	p.verbose = c.Verbose
	p.newLogger(c.Verbose > 0)
	return p.report(kctx.Run(p, parser, set))
}

// newParser makes the parser of the form with subcommands.
func newParser(c *cli, stdout, stderr io.Writer, set *settings) (*kong.Kong, error) {
	options := append(mappers(), defaults(), kong.Name("wcfs"), kong.Writers(stdout, stderr), kong.Resolvers(set),
		kong.Description("File server for the bigfiles of a ZODB database."),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	return kong.New(c, options...)
}

func isSubcommand(parser *kong.Kong, name string) bool {
	for _, child := range parser.Model.Children {
		if child.Name == name {
			return true
		}
	}
	return false
}

// with is the program in another context.
func (p *program) with(ctx context.Context) *program {
	return &program{ctx: ctx, stdout: p.stdout, stderr: p.stderr, log: p.log, verbose: p.verbose}
}

// report tells the user of err, once, and returns the exit code.
func (p *program) report(err error) int {
	var quiet exitStatus
	if err != nil && !errors.As(err, &quiet) {
		lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }) // as of errors.Join
		for i, line := range lines {
			lines[i] = strings.TrimSpace(line)
		}
		fmt.Fprintf(p.stderr, "wcfs: %s\n", strings.Join(lines, "; "))
	}
	return exitCode(err)
}

// newLogger makes the log, which goes to stderr only; the libraries below use the default logger.
func (p *program) newLogger(verbose bool) {
	p.level.Set(slog.LevelInfo)
	if verbose {
		p.level.Set(slog.LevelDebug)
	}
	p.log = slog.New(logHandler(p.logFormat, p.stderr, &p.level))
	slog.SetDefault(p.log)
}
