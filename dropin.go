package main

import (
	"errors"
	"flag"
	"fmt"
	"time"
)

const dropInUsage = `usage: wcfs [options] ZURL MNT      serve the database ZURL at the directory MNT
       wcfs SUBCOMMAND --help       serve, status, stop, ls, stat, cat, history, watch, dial, run, bench, demo

options of the first form:
`

// dropIn is `wcfs [options] ZURL MNT`: how existing clients start a server. They also pass options of
// the glog library, which are accepted; logs go to stderr whatever they say.
func (p *program) dropIn(args []string) error {
	var (
		s       = serveCmd{PinTimeout: defaultPinTimeout}
		fs      = flag.NewFlagSet("wcfs", flag.ContinueOnError)
		verbose int
		ignored struct {
			b bool
			s string
		}
	)
	fs.SetOutput(p.stderr)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), dropInUsage)
		fs.PrintDefaults()
	}
	fs.BoolVar(&s.Debug, "debug", false, "serve .wcfs/debug/zhead, a stream of the transactions processed")
	fs.BoolVar(&s.Autoexit, "autoexit", false, "exit when nothing has been open for a minute")
	fs.DurationVar(&s.PinTimeout, "pintimeout", s.PinTimeout, "kill clients that do not acknowledge a pin within this `DURATION`")
	fs.IntVar(&verbose, "v", 0, "log `LEVEL`; more than 0 logs more")
	fs.BoolVar(&ignored.b, "logtostderr", true, "accepted: logs always go to stderr")
	fs.BoolVar(&ignored.b, "alsologtostderr", true, "accepted: logs always go to stderr")
	for _, name := range []string{"stderrthreshold", "vmodule", "log_dir", "log_backtrace_at"} {
		fs.StringVar(&ignored.s, name, "", "accepted and ignored")
	}

	// -h is no error: it asks for the usage on stdout.
	for _, arg := range args {
		if arg == "-h" || arg == "--h" || arg == "-help" || arg == "--help" {
			fs.SetOutput(p.stdout)
		}
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return exitStatus(exitUsage) // told by the flag package
	}
	if fs.NArg() != 2 {
		fmt.Fprintf(p.stderr, "wcfs: expected ZURL and MNT after the options, got %d arguments\n", fs.NArg())
		fs.Usage()
		return exitStatus(exitUsage)
	}
	s.ZURL, s.Mount = fs.Arg(0), fs.Arg(1)
	p.log = newLogger(p.stderr, verbose > 0)
	return s.Run(p)
}

const defaultPinTimeout = 30 * time.Second
