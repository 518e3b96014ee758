package main

import (
	"context"
	"strings"

	"wcfs/p9srv"
	"wcfs/zcore/tree"
)

// nineOptions are the options of the 9P front; Addr is --9p.
type nineOptions struct {
	P9 p9srv.Options `embed:""`
}

// checkTLS refuses options of a restriction that nothing would enforce.
func (o *nineOptions) checkTLS(http string) error {
	for _, addr := range append([]string{http}, o.P9.Addr...) {
		if strings.HasPrefix(addr, "tls:") {
			return nil
		}
	}
	if o.P9.TLSCert+o.P9.TLSKey+o.P9.TLSClientCA+o.P9.Map != "" {
		return usagef("--tls-cert, --tls-key, --tls-client-ca and --9p-map are for --9p tls:HOST:PORT and --http tls:HOST:PORT only")
	}
	return nil
}

// listen makes the 9P front and listens at every --9p ADDR.
func (c *serveCmd) listen(s *server) error {
	o := c.P9
	o.Tree, o.Log = s.tree, s.p.log
	doms := s.core.NewDomains()
	o.Domain, o.DomainGone = doms.Get, doms.Put
	nine, err := p9srv.New(o)
	if err != nil {
		return usagef("%v", err)
	}
	s.nine = nine
	doms.OnFail(nine.CloseDomain)
	if o.TLSCert != "" && s.p.signals != nil {
		s.p.signals.onReload(nine.Reload)
	}
	for _, addr := range o.Addr {
		bound, err := nine.Listen(context.Background(), addr)
		if err != nil {
			return err
		}
		s.bound = append(s.bound, bound)
		s.p.log.Info("serving", "url", c.ZURL, "9p", bound, "head", s.core.Head())
	}
	return nil
}

// moreStats are the counters of the 9P front; they are there whether it is or not.
func (s *server) moreStats() []tree.Stat {
	var st p9srv.Stats
	if s.nine != nil {
		st = s.nine.Stats()
	}
	var list []tree.Stat
	for _, l := range st.Lines() {
		list = append(list, tree.Stat{Name: l.Name, Value: l.Value})
	}
	return list
}
