package mutants

import "time"

// pinMutants break what protects those who must pin, and others from them.
func pinMutants() []mutant {
	return in("zcore", "Test", nil, []mutant{
		{
			name: "head-error-early", run: "TestHeadReadThat", file: "zcore/erred.go",
			why:   "a READ ends in an error before its pins are acknowledged, and its repetition under mmap_lock waits",
			edits: []edit{{"return errors.Join(err, c.settlePins(ctx, msgs))", "return err"}},
		},
		{
			name: "repetition-waits", run: "TestRepeated", file: "zcore/erred.go",
			why:   "the repetition of a READ that failed waits for pins, under mmap_lock",
			edits: []edit{{"(wait.most == 0 || err != nil):", "(wait.most < 0 || err != nil):"}, {"case wait.bounded:", "case wait.bounded && wait.most > 0:"}},
		},
		{
			name: "interrupted-forgotten", run: "TestReadAfterAn", file: "zcore/erred.go",
			why:   "a client is killed since a READ of another was interrupted, and its own was sent under mmap_lock",
			edits: []edit{{"return true, pinTimeout / 4", "return false, 0"}},
		},
		{
			name: "frozen-client-harms", run: "TestClientThatDoesNotEnd", file: "zcore/watch_fault.go",
			why:   "what a frozen client has not acknowledged cannot be read though that will never run again",
			edits: []edit{{"err == nil && sig == syscall.SIGKILL", "err != nil && sig == syscall.SIGKILL"}},
		},
		{
			name: "living-client-harmless", run: "TestClientThatMayNotBeKilled", file: "zcore/watch_fault.go",
			why:   "a client that runs on without its pin sees blocks of another revision",
			edits: []edit{{"err == nil && sig == syscall.SIGKILL", "sig == syscall.SIGKILL"}},
		},
		{
			name: "unknown-file-waits", run: "TestUnknownFile", file: "zcore/watch.go",
			why:   "each watch of an object that is no file waits for a head far ahead, with a goroutine",
			edits: []edit{{"r.At > l.c.Head() && !l.c.wasKnown(r.Oid)", "r.At == 0"}},
		},
		{
			name: "requests-unbounded", run: "TestWaitingRequests", file: "zcore/bounds.go",
			why:   "a client may have any number of requests under way",
			edits: []edit{{"l.owner.waiting >= c.opts.MaxWaiting", "l.owner.waiting < 0"}},
		},
		{
			name: "requests-counted-for-ever", run: "TestWaitingRequests", file: "zcore/watch.go",
			why:   "requests that were taken back count for ever",
			edits: []edit{{"\tl.endRequests(len(todo))\n\tfor _, t", "\tfor _, t"}},
		},
		{
			name: "links-unbounded", run: "TestLinksAreBounded", file: "zcore/bounds.go",
			why:   "a client may have any number of links",
			edits: []edit{{"o.links >= c.opts.MaxLinks", "o.links < 0"}},
		},
		{
			name: "bases-unbounded", run: "TestBasesAreBounded", file: "zcore/watch_base.go",
			why:   "a client that reads under each tid makes the server remember all of them",
			edits: []edit{{"s == nil && len(d.bases) >= d.maxBases", "s == nil && d.maxBases < 0"}},
		},
		{
			name: "window-unbounded", run: "TestSlowClient", file: "zcore/watch_link.go",
			why:   "all pins are sent at once",
			edits: []edit{{"make(chan struct{}, c.opts.PinWindow)", "make(chan struct{}, 1<<20)"}},
		},
		{
			name: "clocks-start-at-once", run: "TestSlowClient", file: "zcore/watch_pin.go",
			why:   "a client is killed that acknowledges all the time, but has many pins",
			edits: []edit{{"l.c.reachable() && l.oldest(stream)", "l.c.reachable()"}},
		},
		{
			name: "help-per-block", run: "TestHelpHas", file: "zcore/pagecache_keep.go",
			why:   "each block of a commit waits for help that is stuck",
			edits: []edit{{"\tcase <-help.Done():\n\t\tc.keep", "\tcase <-time.After(keepWait):\n\t\tc.keep"}},
		},
		{
			name: "history-unbounded", run: "TestWatchThatKeeps", file: "zcore/bounds.go",
			why:   "one idle watch has the server remember all commits",
			edits: []edit{{"if !full {", "if !full || held > 0 {"}},
		},
		{
			name: "touch-search-early", pkg: "zcore/history", run: "TestSearchIsTheWalk", file: "zcore/history/touches.go",
			why:   "a commit that touched an object is taken for one after itself",
			edits: []edit{{"return older[i] > v", "return older[i] >= v"}},
		},
		{
			name: "touches-stay", pkg: "zcore/history", run: "TestSearchIsTheWalk", file: "zcore/history/touches.go",
			why:   "what touched an object is remembered for ever",
			edits: []edit{{"case len(older) == 1 && older[0] == tid:", "case len(older) == 1 && older[0] == tid && oid == 0:"}},
		},
		{
			name: "zhead-unbounded", run: "TestUnreadZhead", file: "zcore/zhead.go",
			why:   "a stream of commits that nobody reads grows for ever",
			edits: []edit{{"len(z.tids) >= maxUnreadTids || z.over", "z.over"}},
		},
		{
			name: "gap-begins-anew", run: "TestGapOver", file: "zcore/history/delta.go",
			why:   "a gap over a database that fails now and then is begun anew with each failure, and never ends",
			edits: []edit{{"t.opts.Retry == nil || zodb.", "t.opts.Retry != nil || zodb."}},
		},
		{
			name: "stuck-pins-awaited", run: "TestRepeated", limit: 30 * time.Second, hangs: true, file: "zcore/watch_pin.go",
			why:   "a READ that fails in an outage hangs for as long as that lasts",
			edits: []edit{{"if zodb.KindOf(err) != zodb.KindAnswer {\n\t\t\t\tw.setStuck(p, true)\n\t\t\t}\n", ""}},
		},
		{
			name: "unknown-history-unpinned", run: "TestHeadReadThat|TestRepeated", file: "zcore/watch_pin.go",
			why:   "a watch is not told to pin where the history of a block cannot be had",
			edits: []edit{{"m, err = w.protectAt(blk, v), werr", "err = werr"}},
		},
		{
			name: "clock-runs-in-outage", run: "TestPinClocksStandStill", file: "zcore/watch_pin.go",
			why:   "a client is killed that cannot re-map, as the database is away",
			edits: []edit{{"l.c.reachable() && l.oldest(stream)", "l.oldest(stream)"}},
		},
		{
			name: "clock-runs-when-cut-off", run: "TestPinClocksStandStill", file: "zcore/wait.go",
			why:   "so is one while the driver knows that the connection is lost and loads have not failed yet",
			edits: []edit{{"ok && !conn.Connected {", "ok && !conn.Connected && conn.Since.IsZero() {"}},
		},
		{
			name: "memory-is-an-answer", run: "TestPinClocksStandStill", file: "zcore/rev.go",
			why:   "what is in memory ends an outage",
			edits: []edit{{"\treturn b, nil\n}", "\tr.c.noteAnswer()\n\treturn b, nil\n}"}},
		},
		{
			name: "stuck-behind-one-that-lives", run: "TestClientThatMayNotBeKilledOwes", limit: 30 * time.Second, file: "zcore/watch_pin.go",
			why:   "readers wait for the other pins of a client that may not be killed for as long as it lives",
			edits: []edit{{"\t\tcase <-l.killed: // for another pin: that is never answered, so this one's clock would not run\n\t\t\tl.forgetReply(stream)\n\t\t\treturn \"\", 0\n", ""}},
		},
		{
			name: "front-error-unnoticed", run: "TestReadThatAFront", file: "zcore/read.go",
			why:   "a READ whose data cannot be handed over is not known to have failed",
			edits: []edit{{"d.Failed = func() { f.noteErred(dom, parts, ErrIO) }", "_ = parts"}},
		},
	})
}
