package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wcfs/qemu"
)

// runCmd is `wcfs run`.
type runCmd struct {
	qemu.RunOptions `embed:""`
}

// Run boots a guest on the host's root and runs a program in it; its exit status is that of the program.
// Signals are the guest's: it gets Ctrl-C, so they do not end the context here.
func (c *runCmd) Run(p *program) error {
	o := c.RunOptions
	o.Verbose = p.verbose
	status, err := qemu.RunCommand(context.WithoutCancel(p.ctx), o, os.Stdin, os.Stdout, os.Stderr)
	var guest *qemu.Error
	if errors.As(err, &guest) {
		p.report(errors.New(guest.Cause()))
		if p.verbose == 0 && guest.Console != "" { // else it was shown as it came
			fmt.Fprintf(p.stderr, "End of the guest's console:\n%s\n", guest.Console)
		}
	} else if err != nil {
		p.report(err)
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}
