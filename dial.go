package main

import (
	"strings"

	"wcfs/p9srv"
)

// dialCmd is `wcfs dial tls:HOST:PORT`.
type dialCmd struct {
	Addr   string `arg:"" help:"Server: tls:HOST:PORT."`
	Listen string `required:"" placeholder:"ADDR" help:"Where to take local connections: unix:PATH or tcp:127.0.0.1:PORT."`

	Dial p9srv.DialOptions `embed:""`
}

// Run carries local connections, such as a kernel's mount, through TLS to a server.
func (c *dialCmd) Run(p *program) error {
	if !strings.HasPrefix(c.Addr, "tls:") {
		return usagef("%s: only to tls:HOST:PORT is there anything to carry; others are dialed as they are", c.Addr)
	}
	if err := c.Dial.Check(c.Addr); err != nil {
		return usagef("%v", err)
	}
	p.signals = p.handleSignals()
	defer p.signals.stop()
	relay := p9srv.Relay{Server: c.Addr, Local: c.Listen, Dial: c.Dial, Log: p.log}
	return relay.Run(p.ctx, func(addr string) { p.log.Info("listening", "addr", addr, "server", c.Addr) })
}
