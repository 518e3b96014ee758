package main

import (
	"crypto/tls"
	"errors"

	"wcfs/httpsrv"
	"wcfs/p9srv"
)

// serveHTTP serves what --http names, to those who run the server.
func (c *serveCmd) serveHTTP(s *server) error {
	web := httpsrv.New(httpsrv.Options{
		Core: s.core, Storage: s.stor, Version: version(), Log: s.p.log,
		Stats: s.nineCounters,
		TLS:   func() (*tls.Config, func(tls.ConnectionState) error, error) { return c.webTLS(s) },
	})
	url, err := web.Listen(c.HTTP)
	if err != nil {
		web.Close()
		if errors.Is(err, httpsrv.ErrUsage) {
			return usagef("%v", err)
		}
		return err
	}
	s.web, s.webURL = web, url
	s.p.log.Info("serving HTTP", "http", url)
	return nil
}

// webTLS takes the certificates of the 9P front; where that serves nowhere it is there for them only.
func (c *serveCmd) webTLS(s *server) (*tls.Config, func(tls.ConnectionState) error, error) {
	nine := s.nine
	if nine == nil {
		o := c.P9
		o.Tree, o.Log = s.tree, s.p.log
		var err error
		if nine, err = p9srv.New(o); err != nil {
			return nil, nil, err
		}
		if s.p.signals != nil {
			s.p.signals.onReload(nine.Reload)
		}
	}
	return nine.ServerTLS()
}

func (s *server) nineCounters() []httpsrv.Counter {
	if s.nine == nil {
		return nil
	}
	var list []httpsrv.Counter
	for _, l := range s.nine.Stats().Lines() {
		list = append(list, httpsrv.Counter{Name: l.Name, Value: l.Value})
	}
	return list
}
