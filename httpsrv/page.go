package httpsrv

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

//go:embed page
var page embed.FS

// pageRoutes are the page and what it asks for.
func (s *Server) pageRoutes(mux *http.ServeMux) {
	files, err := fs.Sub(page, "page")
	if err != nil { // it is in this binary
		panic(err)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.html") })
	mux.HandleFunc("GET /page/{name}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, path.Base(r.PathValue("name")))
	})
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, _ *http.Request) { s.json(w, s.look()) })
	mux.HandleFunc("GET /api/events", s.events)
	mux.HandleFunc("GET /api/map", s.serveMap)
	mux.HandleFunc("GET /api/revs", s.serveRevs)
	mux.HandleFunc("GET /api/change", s.serveChange)
	mux.HandleFunc("GET /api/block", s.serveBlock)
}

func (s *Server) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.opts.Log.Debug("HTTP reply", "cause", err)
	}
}

// Look is the state with what only a reader on this host needs.
type Look struct {
	zcore.State
	URL     string            `json:"url"`
	Version string            `json:"version"`
	Users   map[string]string `json:"users"` // names by uid
}

// states keeps the last look, so that many who look cost as much as one.
type states struct {
	mu    sync.Mutex
	last  *Look         // mu
	took  time.Duration // mu
	until time.Time     // mu
}

const (
	lookOften  = 250 * time.Millisecond // how often the state is looked at for the page
	lookRarely = time.Second            // where that takes long
	lookShare  = 100                    // it takes one part in so many of a processor, as long as lookRarely allows
)

// look returns a state that is at most lookRarely old.
func (s *Server) look() *Look {
	t := &s.states
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && time.Now().Before(t.until) {
		return t.last
	}
	began := time.Now()
	l := &Look{State: s.opts.Core.State(), URL: s.opts.Core.URL(), Version: s.opts.Version, Users: map[string]string{}}
	for _, c := range l.Clients {
		if c.UID != nil {
			l.Users[strconv.FormatUint(uint64(*c.UID), 10)] = s.users.name(*c.UID)
		}
	}
	t.last, t.took = l, time.Since(began)
	t.until = time.Now().Add(min(lookRarely, max(lookOften, lookShare*t.took)))
	return l
}

const maxStreams = 64

// events sends the state whenever it is looked at anew, as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer s.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(lookOften)
	defer tick.Stop()
	for last := (*Look)(nil); ; {
		if l := s.look(); l != last {
			last = l
			text, err := json.Marshal(l)
			if err != nil {
				return
			}
			out.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// number is a parameter of a request.
func number(r *http.Request, name string, byDefault, most int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s=%q: give a number from 0 to %d", name, text, most)
	}
	return n, nil
}

const maxSide = 4096 // cells of a picture a side

// serveMap paints a part of a file's map.
func (s *Server) serveMap(w http.ResponseWriter, r *http.Request) {
	oid, err := zodb.ParseOid(r.FormValue("file"))
	var n [6]int64
	for i, p := range []struct {
		name       string
		def, limit int64
	}{{"b0", 0, 1 << 60}, {"b1", 0, 1 << 60}, {"r0", 0, 1 << 40}, {"r1", 0, 1 << 40}, {"w", 800, maxSide}, {"h", 400, maxSide}} {
		if err == nil {
			n[i], err = number(r, p.name, p.def, p.limit)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := s.fileMap(oid)
	p := m.picture(n[0], n[1], int(n[2]), int(n[3]), int(n[4]), int(n[5]))
	p.Watches = m.standings(s.opts.Core.Watches(oid))
	if p.W > 0 {
		for x, k := range s.opts.Core.TrackedIn(oid, zdata.Blk(p.B0), zdata.Blk(p.B1), p.W) {
			lo, hi := p.column(x)
			p.Tracked[x] = share(int64(k), hi-lo)
		}
	}
	s.json(w, p)
}

// serveRevs lists revisions of a file.
func (s *Server) serveRevs(w http.ResponseWriter, r *http.Request) {
	oid, err := zodb.ParseOid(r.FormValue("file"))
	var from, n int64
	if err == nil {
		from, err = number(r, "from", 0, 1<<40)
	}
	if err == nil {
		n, err = number(r, "n", 100, 1000)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	list := s.fileMap(oid).list(int(from), int(n))
	s.json(w, list)
}

// serveChange finds the next change of a block before or after a revision.
func (s *Server) serveChange(w http.ResponseWriter, r *http.Request) {
	oid, err := zodb.ParseOid(r.FormValue("file"))
	var blk, rev int64
	if err == nil {
		blk, err = number(r, "blk", 0, 1<<40)
	}
	if err == nil {
		rev, err = number(r, "rev", 0, 1<<40)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := s.fileMap(oid)
	s.json(w, map[string]int{"rev": m.nextChange(zdata.Blk(blk), int(rev), r.FormValue("later") != "")})
}

const maxPiece = 256 << 10 // bytes of a block at once

// serveBlock sends bytes of a block as of a revision.
func (s *Server) serveBlock(w http.ResponseWriter, r *http.Request) {
	oid, err := zodb.ParseOid(r.FormValue("file"))
	var at zodb.Tid
	var blk, off, n int64
	if err == nil {
		at, err = zodb.ParseTid(r.FormValue("at"))
	}
	if err == nil {
		blk, err = number(r, "blk", 0, 1<<40)
	}
	if err == nil {
		off, err = number(r, "off", 0, 1<<40)
	}
	if err == nil {
		n, err = number(r, "n", 4096, maxPiece)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	data, err := s.blockData(r.Context(), oid, at, blk, off, n)
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, zcore.ErrNotExist) || errors.Is(err, zcore.ErrInvalid) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(data)
}

// blockData reads n bytes at off of a block, fewer at its end.
func (s *Server) blockData(ctx context.Context, oid zodb.Oid, at zodb.Tid, blk, off, n int64) ([]byte, error) {
	f, err := s.opts.Core.LookupRev(ctx, at, oid)
	if err != nil {
		return nil, fmt.Errorf("bigfile %s as of %s: %w", oid, at, err)
	}
	blksize := f.Attr().Blksize
	if off >= blksize || blk > (1<<62)/blksize {
		return nil, nil
	}
	d, err := f.Read(ctx, int(min(n, blksize-off)), blk*blksize+off)
	if err != nil {
		return nil, err
	}
	if d.Done != nil {
		defer d.Done()
	}
	data := make([]byte, 0, d.Size())
	for _, p := range d.Pieces {
		if p.File == nil {
			data = append(data, p.Mem...)
			continue
		}
		part := make([]byte, p.Len)
		if _, err := p.File.ReadAt(part, p.Off); err != nil {
			return nil, fmt.Errorf("read of the database's file: %w", err)
		}
		if err := p.Check(); err != nil {
			return nil, err
		}
		data = append(data, part...)
	}
	return data, nil
}
