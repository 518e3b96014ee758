package httpsrv

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"wcfs/zcore"
	"wcfs/zcore/history"
)

// registry has the metrics of this server, of its process, and of Go.
func (s *Server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// collector makes metrics from one State. It keeps nothing: between two scrapes metrics cost nothing.
type collector struct{ s *Server }

// Describe tells nothing beforehand, which makes the collector an unchecked one: the names are all in Collect.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// metrics sends them.
type metrics struct{ ch chan<- prometheus.Metric }

func (m metrics) put(t prometheus.ValueType, name, help string, v float64, labels prometheus.Labels) {
	names, values := pairs(labels)
	m.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("wcfs_"+name, help, names, nil), t, v, values...)
}

func (m metrics) gauge(name, help string, v float64) {
	m.put(prometheus.GaugeValue, name, help, v, nil)
}
func (m metrics) counter(name, help string, v float64) {
	m.put(prometheus.CounterValue, name, help, v, nil)
}

func (m metrics) histogram(name, help string, d history.Durations, labels prometheus.Labels) {
	names, values := pairs(labels)
	buckets := make(map[float64]uint64, len(d.Buckets))
	for _, b := range d.Buckets {
		buckets[b.Le] = uint64(b.Count)
	}
	m.ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc("wcfs_"+name, help, names, nil), uint64(d.Count), d.Sum, buckets, values...)
}

func pairs(labels prometheus.Labels) (names, values []string) {
	for name, v := range labels {
		names, values = append(names, name), append(values, v)
	}
	return names, values
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	m := metrics{ch}
	st := c.s.opts.Core.State()
	m.put(prometheus.GaugeValue, "build_info", "Always 1; the label says what was built.", 1, prometheus.Labels{"version": c.s.opts.Version})
	for _, state := range []string{zcore.HealthOK, zcore.HealthDegraded, zcore.HealthFailed} {
		m.put(prometheus.GaugeValue, "health", "1 for the state that the server is in.", truth(st.Health.State == state), prometheus.Labels{"state": state})
	}
	m.commits(&st)
	m.reads(&st)
	m.clients(&st)
	m.storage(&st)
	if c.s.opts.Stats != nil {
		m.ninep(c.s.opts.Stats())
	}
}

func (m metrics) commits(st *zcore.State) {
	h := st.Health.Head
	m.gauge("head_age_seconds", "Time since the transaction that head is at.", h.Age)
	m.gauge("head_behind_seconds", "Time since the first commit was received that is not announced.", h.Lag)
	m.gauge("head_behind_commits", "Commits received and not announced.", float64(h.Behind))
	m.counter("commits_total", "Commits announced.", float64(st.Head.Commits))
	m.counter("changed_blocks_total", "Tracked blocks that commits changed.", float64(st.Head.Changed))
	m.histogram("commit_apply_seconds", "From when a commit was received until it was announced.", st.Head.Lag, nil)
	m.histogram("commit_age_seconds", "From the time in a commit's tid until it was announced; clocks of other hosts count.", st.Head.Age, nil)
	m.gauge("remembered_commits", "Commits kept in memory for watches.", float64(st.Storage.Commits))
	m.gauge("remembered_commits_bytes", "Memory of the commits kept.", float64(st.Storage.Bytes))
}

func (m metrics) reads(st *zcore.State) {
	for front, f := range st.Fronts {
		for _, t := range []struct {
			tree string
			zcore.Traffic
		}{{"head", f.Head}, {"revision", f.Rev}, {"base", f.Base}} {
			labels := prometheus.Labels{"front": front, "tree": t.tree}
			m.put(prometheus.CounterValue, "reads_total", "Reads of bigfiles that were answered with data.", float64(t.Reads), labels)
			m.put(prometheus.CounterValue, "read_bytes_total", "Bytes of bigfiles that were read.", float64(t.Bytes), labels)
		}
		m.put(prometheus.CounterValue, "read_errors_total", "Reads of head that ended in an error.", float64(f.Errors), prometheus.Labels{"front": front})
	}
	m.histogram("pin_wait_seconds", "Waits of reads and watch requests for clients that had a pin to acknowledge.", st.Pins.Waits, nil)
	tracked := 0
	for _, f := range st.Files {
		tracked += f.Tracked
	}
	m.gauge("bigfiles", "Bigfiles that were looked up.", float64(st.Stats.BigFile))
	m.gauge("bigfiles_failed", "Bigfiles that have failed and are still open, or did so lately.", float64(st.Health.Files.Failed))
	m.gauge("tracked_blocks", "Blocks that some client may have cached.", float64(tracked))
}

func (m metrics) clients(st *zcore.State) {
	p := st.Health.Pins
	m.gauge("watch_links", "Watch files open.", float64(st.Stats.WatchLink))
	m.gauge("watches", "Watches of bigfiles.", float64(st.Stats.Watch))
	m.gauge("watch_requests_waiting", "Watch requests under way.", float64(st.Stats.Waiting))
	m.gauge("pinned_blocks", "Blocks that clients have pinned.", float64(st.Stats.PinnedBlk))
	m.gauge("pins_owed", "Pins sent that clients have not acknowledged.", float64(p.Owed))
	m.gauge("pins_owed_oldest_seconds", "Time since the oldest of them was sent.", p.Oldest)
	m.gauge("clients_owing", "Watch links that owe a pin.", float64(p.Clients))
	m.counter("pins_total", "Pins sent.", float64(st.Stats.Pin))
	m.counter("clients_killed_total", "Clients killed since they did not acknowledge a pin.", float64(st.Stats.PinKill))
	m.counter("refusals_total", "Watch links, watch requests and bases that were refused, and watches ended, for a bound.", float64(st.Stats.Refused))
	m.histogram("pin_ack_seconds", "From when a pin was sent until it was acknowledged, or its client did not matter any more.", st.Pins.Acks, nil)
}

func (m metrics) storage(st *zcore.State) {
	s := &st.Storage
	m.gauge("storage_connected", "1 while the database can be reached, as far as is known.", truth(st.Health.Storage.Connected && st.Health.Storage.Error == ""))
	m.counter("storage_connections_lost_total", "How often the connection to the database was lost.", float64(st.Lost))
	for kind, d := range s.Loads {
		m.histogram("storage_load_seconds", "Loads from the database.", d, prometheus.Labels{"kind": kind})
	}
	m.counter("storage_load_errors_total", "Loads that ended in an error, or were given up.", float64(s.Failed))
	m.counter("read_failures_total", "Loads that failed for a client.", float64(st.Health.Loads.Failed))
	m.counter("blocks_in_place_total", "Blocks found in the database's file as they are, for reads without a copy.", float64(s.Plain))
	for cache, c := range map[string]history.CacheStats{"node": s.Nodes, "block": s.Blocks} {
		labels := prometheus.Labels{"cache": cache}
		m.put(prometheus.CounterValue, "cache_hits_total", "Look-ups that the cache answered.", float64(c.Hits), labels)
		m.put(prometheus.CounterValue, "cache_misses_total", "Look-ups that it did not.", float64(c.Misses), labels)
		m.put(prometheus.GaugeValue, "cache_entries", "Entries of the cache.", float64(c.Entries), labels)
		m.put(prometheus.GaugeValue, "cache_bytes", "Memory of the cache.", float64(c.Bytes), labels)
		m.put(prometheus.GaugeValue, "cache_limit_bytes", "Bound of the cache.", float64(c.Bound), labels)
	}
}

// ninep are the counters of the 9P front, by their names in .wcfs/stats.
func (m metrics) ninep(list []Counter) {
	for _, c := range list {
		v := float64(c.Value)
		switch c.Name {
		case "P9Conn":
			m.gauge("p9_connections", "9P connections open.", v)
		case "P9Fid":
			m.gauge("p9_fids", "Fids of 9P connections.", v)
		case "P9Req":
			m.gauge("p9_requests", "9P requests in flight.", v)
		case "P9Bytes":
			m.gauge("p9_inflight_bytes", "Bytes of data in flight to 9P clients.", v)
		case "p9accept":
			m.counter("p9_accepted_total", "9P connections accepted.", v)
		case "p9msg":
			m.counter("p9_messages_total", "9P messages received.", v)
		case "p9connrefused":
			m.counter("p9_refused_connections_total", "9P connections refused.", v)
		case "p9reqrefused":
			m.counter("p9_refused_requests_total", "9P requests refused.", v)
		}
	}
}
