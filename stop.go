package main

import (
	"time"

	"wcfs/fusesrv"
)

// stopCmd is `wcfs stop MNT`.
type stopCmd struct {
	Mount   string        `arg:"" name:"mnt" help:"Mount directory."`
	Timeout time.Duration `default:"3s" help:"How long each step may take."`
}

// Run goes from gentle to rough, until neither mount nor server is left.
func (c *stopCmd) Run(p *program) error {
	if err := mustBe(c.Mount, mountArg, aMount); err != nil {
		return err
	}
	return fusesrv.Stop(p.ctx, c.Mount, fusesrv.StopOptions{Step: c.Timeout, Log: p.log})
}
