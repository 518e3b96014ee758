package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"wcfs/zcore"
)

const dropInUsage = `Usage: wcfs [options] ZURL MNT      serve the database ZURL at the directory MNT
       wcfs SUBCOMMAND --help

Subcommands:
`

// printUsage tells of both forms of use; subcommands are those of parser.
func printUsage(w io.Writer, parser *kong.Kong, options *flag.FlagSet) {
	fmt.Fprint(w, dropInUsage)
	for _, child := range subcommands(parser) {
		fmt.Fprintf(w, "  %-10s %s\n", child.Name, child.Help)
	}
	fmt.Fprintln(w, "\nOptions of the first form:")
	options.SetOutput(w)
	options.PrintDefaults()
}

// dropIn is `wcfs [options] ZURL MNT`: how existing clients start a server. They also pass options of
// the glog library, which are accepted; logs go to stderr whatever they say.
func (p *program) dropIn(parser *kong.Kong, args []string) error {
	var (
		s       = serveCmd{PinTimeout: zcore.DefaultPinTimeout, OnFileChange: changeEndsAll, dropIn: true}
		fs      = flag.NewFlagSet("wcfs", flag.ContinueOnError)
		verbose int
		ignored struct {
			b bool
			s string
		}
	)
	fs.SetOutput(io.Discard) // the error says it all
	fs.Usage = func() {}
	fs.BoolVar(&s.Debug, "debug", false, "serve .wcfs/debug/zhead, a stream of the transactions processed")
	fs.BoolVar(&s.Autoexit, "autoexit", false, "exit when nothing has been open for a minute")
	fs.Var(durationFlag{&s.PinTimeout}, "pintimeout", "kill clients that do not acknowledge a pin within this `DURATION`")
	fs.StringVar(&s.OnFileChange, "on-file-change", s.OnFileChange, "`WHAT` fails when a bigfile is deleted or its block size, table or state is replaced: file or mount")
	fs.IntVar(&verbose, "v", 0, "log `LEVEL`; more than 0 logs more")
	fs.BoolVar(&ignored.b, "logtostderr", true, "accepted: logs always go to stderr")
	fs.BoolVar(&ignored.b, "alsologtostderr", true, "accepted: logs always go to stderr")
	for _, name := range []string{"stderrthreshold", "vmodule", "log_dir", "log_backtrace_at"} {
		fs.StringVar(&ignored.s, name, "", "accepted and ignored")
	}

	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printUsage(p.stdout, parser, fs)
		return nil
	case err != nil:
		return wrongUse("%v", err)
	case len(args) == 0:
		printUsage(p.stderr, parser, fs)
		return exitStatus(exitUsage)
	case fs.NArg() > 0 && kindOf(fs.Arg(0)) != aZURL && !strings.Contains(fs.Arg(0), "/"):
		return wrongUse("%q is no subcommand, and no database URL like file:///path/Data.fs", fs.Arg(0))
	case fs.NArg() != 2:
		return wrongUse("expected ZURL and MNT after the options, got %q", fs.Args())
	case s.PinTimeout <= 0:
		return wrongUse("-pintimeout %v: must be more than 0", s.PinTimeout)
	case s.OnFileChange != changeEndsFile && s.OnFileChange != changeEndsAll:
		return wrongUse("-on-file-change %q: must be file or mount", s.OnFileChange)
	}
	s.ZURL, s.Mount = fs.Arg(0), fs.Arg(1)
	p.newLogger(verbose > 0)
	return s.serve(p)
}

// wrongUse says what is wrong with the arguments, and what they should be.
func wrongUse(format string, args ...any) error {
	return usagef(format+"; usage: wcfs [options] ZURL MNT (see `wcfs --help`)", args...)
}
