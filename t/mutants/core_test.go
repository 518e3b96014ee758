package mutants

import "time"

// coreMutants break the order of events.
func coreMutants() []mutant {
	return in("zcore", "Test", nil, []mutant{
		{
			name: "announce-before-drop", file: "zcore/commit.go",
			why:   "clients are told of a head while pages with older content are still there",
			edits: []edit{{"\tif err := c.dropChanged(", "\tc.announce(last)\n\tif err := c.dropChanged("}},
		},
		{
			name: "publish-after-delta", file: "zcore/commit.go",
			why: "a read that tracks a block while a commit is computed does not see that commit",
			edits: []edit{
				{"\tc.tail.Publish(batch)\n", ""},
				{"\tc.step(StepDelta)\n", "\tc.step(StepDelta)\n\tc.tail.Publish(batch)\n"},
			},
		},
		{
			name: "view-before-delta", file: "zcore/commit.go",
			why: "reads are answered as of a view whose changes are not known yet",
			edits: []edit{
				{"\tc.step(StepPublished)\n", "\told, last := c.moveView(batch[len(batch)-1].Tid)\n\tc.step(StepPublished)\n"},
				{"\told, last := c.moveView(batch[len(batch)-1].Tid)\n\tc.step(StepView)\n", "\tc.step(StepView)\n"},
			},
		},
		{
			name: "pages-stay", file: "zcore/pagecache_drop.go",
			why:   "changed blocks are not invalidated",
			edits: []edit{{"return c.pc.Invalidate(f.Oid(), int64(blk)*f.h.Blksize, f.h.Blksize)", "return nil"}},
		},
		{
			name: "no-grace", run: "TestBlockIsLeftAlone", file: "zcore/pagecache_drop.go",
			why:   "a block is invalidated while a READ of it is under way",
			edits: []edit{{"if err := c.waitQuiet(ctx, f, blk, t); err != nil {", "if err := ctx.Err(); err != nil {"}},
		},
		{
			name: "upload-unchecked", file: "zcore/pagecache_drop.go",
			why:   "a block that has changed since it was read is uploaded",
			edits: []edit{{"if !c.tail.Unchanged(f.h, blk, g.r.view, g.m) {", "if f == nil {"}},
		},
		{
			name: "upload-unlocked", run: "TestUploadTo", file: "zcore/pagecache_drop.go",
			why:   "a block is invalidated between the check and its upload",
			edits: []edit{{"defer unlock()\n\tif !c.tail.Unchanged", "unlock()\n\tif !c.tail.Unchanged"}},
		},
		{
			name: "retrieve-trusted", run: "TestWrongPages", file: "zcore/pagecache_keep.go",
			why:   "what the kernel returns is stored under @rev unseen",
			edits: []edit{{"if c.tail.Hash(data) != save.Hash {", "if save.Hash == 0 {"}},
		},
		{
			name: "memory-trusted", file: "zcore/pagecache_keep.go",
			why:   "what is in memory is stored under @rev though it is not what was read",
			edits: []edit{{"b != nil && b.Serial == save.Serial {", "b != nil {"}, {"k.ch.tid-1); b != nil", "k.ch.tid); b != nil"}},
		},
		{
			name: "zhead-early", run: "TestHeadDoesNot", file: "zcore/commit.go",
			why:   "a commit is said to be applied while old blocks are still on their way",
			edits: []edit{{"\t\t\td.f.waitKept(ctx, help)\n", "\t\t\t_ = d\n"}},
		},
		{
			name: "kept-in-part", run: "TestPartIsNot", file: "zcore/pagecache_keep.go",
			why:   "a block of which only a part is cached is kept",
			edits: []edit{{"return first && last", "return first || last"}},
		},
		{
			name: "kept-over-a-gap", run: "TestKeptOver", file: "zcore/pagecache_drop.go",
			why:   "what a block was before a gap is stored under a revision inside it",
			edits: []edit{{"first = gap + 1", "_ = gap"}},
		},
		{
			name: "kept-past-the-end", run: "TestHolePast", file: "zcore/pagecache_keep.go",
			why:   "pages are stored past the end that a file had at a revision",
			edits: []edit{{"if save.Hole { // data", "if save.Hole && rev == 0 { // data"}},
		},
		{
			name: "grace-forgets-older", run: "TestGraceCounts", file: "zcore/read_inflight.go",
			why:   "the grace does not count from the last answer under an older view, if that was not the newest of these",
			edits: []edit{{"done = later(done, b.newDone)", "done = b.newDone"}},
		},
		{
			name: "grace-forgets-older-later", run: "TestGraceCounts", file: "zcore/read_inflight.go",
			why:   "nor when the block is read under the present view",
			edits: []edit{{"b.oldDone = later(b.oldDone, b.newDone)", "b.oldDone = b.newDone"}},
		},
		{
			name: "no-pins-on-read", run: "TestPackBelow", file: "zcore/read.go",
			why:   "older watches are not told before a block is shown",
			edits: []edit{{"msgs, perr := f.pinReaders(ctx, dom, blk, r.view)\n", "var msgs []*pinMsg\n\tperr := ctx.Err()\n"}},
		},
		{
			name: "acks-not-waited", file: "zcore/erred.go",
			why:   "a block is shown before the watches that must not see it have acknowledged",
			edits: []edit{{"return c.waitPins(ctx, msgs)\n", "return nil\n"}},
		},
		{
			name: "second-read-passes", file: "zcore/watch_pin.go",
			why:   "a pin that is queued counts as acknowledged",
			edits: []edit{{"\t\tif p.target != rev {\n", "\t\tif p.target == rev {\n\t\t\treturn nil\n\t\t}\n\t\tif p.target != rev {\n"}},
		},
		{
			name: "no-fifo", file: "zcore/watch_pin.go",
			why: "messages of one block are sent side by side",
			edits: []edit{
				{"\t\"fmt\"\n", "\t\"fmt\"\n\t\"slices\"\n"},
				{"\t\t\tif len(p.queue) == 1 {\n\t\t\t\tgo w.send(blk, p, m)\n\t\t\t}\n", `			go func() {
				m.err = w.sendOne(blk, p, m)
				w.mu.Lock()
				p.queue = slices.DeleteFunc(p.queue, func(q *pinMsg) bool { return q == m })
				w.mu.Unlock()
				close(m.done)
			}()
`},
			},
		},
		{
			name: "two-senders", run: "TestOneSenderPerBlock", file: "zcore/watch_pin.go",
			why: "a message queued as the sender is about to end is sent twice",
			edits: []edit{
				{"\t\tnext := w.sent(blk, p)\n\t\tclose(msg.done)\n\t\tmsg = next\n", `		next := w.sent(blk, p)
		close(msg.done)
		if next == nil {
			time.Sleep(time.Microsecond)
			w.mu.Lock()
			if len(p.queue) > 0 {
				next = p.queue[0]
			}
			w.mu.Unlock()
		}
		msg = next
`},
			},
		},
		{
			name: "at-not-rechecked", run: "TestPinDecidedAs", file: "zcore/watch_pin.go",
			why:   "a pin is decided for an at that the watch has left meanwhile",
			edits: []edit{{"if w.at == at {", "if w.at >= at {"}},
		},
		{
			name: "newer-decision-overridden", run: "TestNewerDecision", file: "zcore/watch_pin.go",
			why:   "an advance unpins what a read has pinned meanwhile as of a newer view",
			edits: []edit{{"if p.at != at || p.view <= v {", "if p.at <= at {"}},
		},
		{
			name: "watch-ahead-of-head", file: "zcore/watch_setup.go",
			why:   "a watch is set up at a revision that is not announced",
			edits: []edit{{"\tif err := c.waitHead(ctx, r.At); err != nil {\n\t\treturn errRemoved\n\t}\n\thold", "\thold"}},
		},
		{
			name: "bound-before-hold", run: "TestHoldComes", file: "zcore/watch_setup.go",
			why: "what a watch depends on is forgotten between the check of the bound and the hold",
			edits: []edit{
				{"\thold := c.tail.Hold(r.least())\n\tc.step(StepWatchHold)\n\tf, err := l.checkAt(r)\n", "\tf, err := l.checkAt(r)\n\tc.step(StepWatchHold)\n\thold := c.tail.Hold(r.least())\n"},
			},
		},
		{
			name: "old-end-stays", run: "TestZerosPast", file: "zcore/pagecache_drop.go",
			why:   "zeros past an old end stay in a page where blocks end inside it",
			edits: []edit{{"d.resize && was%c.pageSize != 0 {", "d.resize && was%c.pageSize < 0 {"}},
		},
		{
			name: "closed-with-a-pin", run: "TestLinkClosedWith", file: "zcore/watch_link.go",
			why:   "a client that closes its link with a pin outstanding goes on",
			edits: []edit{{"if !owed || ended ||", "if owed || !owed || ended ||"}},
		},
		{
			name: "closed-link-unnoticed", run: "TestLinkClosedWith", file: "zcore/watch_pin.go",
			why:   "nor is that taken for a fault by who waits for the pin",
			edits: []edit{{"return \"watch link closed\"", "return \"\""}},
		},
		{
			name: "set-up-without-pins", file: "zcore/watch_setup.go",
			why:   "blocks that changed after the revision of a new watch are not pinned",
			edits: []edit{{"\tv := c.view\n", "\tv := r.At\n"}},
		},
		{
			name: "view-before-entry", file: "zcore/watch_setup.go",
			why: "between the view of a set-up and its entry into the table a read sees no watch",
			edits: []edit{
				{"\tw, known, err := l.enter(ctx, on", "\tc.mu.Lock()\n\tv := c.view\n\tc.mu.Unlock()\n\tc.step(StepWatchView)\n\tw, known, err := l.enter(ctx, on"},
				{"\tc.mu.Lock()\n\tv := c.view\n\tc.mu.Unlock()\n\tc.step(StepWatchView)\n\tvar msgs", "\tvar msgs"},
			},
		},
		{
			name: "pins-stay", file: "zcore/watch_setup.go",
			why:   "an advance does not unpin",
			edits: []edit{{"want[blk] = tidHead // not", "want[blk] = p.target // not"}},
		},
		{
			name: "set-up-unpins-new", run: "TestFirstReadDuringSetup", file: "zcore/watch_setup.go",
			why:   "a block that is read for the first time while a watch is set up is unpinned by that",
			edits: []edit{{"want[blk] = p.target\n", "_ = p.target\n"}},
		},
		{
			name: "set-up-forgets-readers", run: "TestAdvanceWaits", file: "zcore/watch_setup.go",
			why:   "an advance does not wait for the pins that readers have sent for it",
			edits: []edit{{"want[blk] = p.target\n", "delete(want, blk)\n"}},
		},
		{
			name: "late-pin", run: "TestLatePin", file: "zcore/watch_link.go",
			why:   "a pin of a watch that is gone comes after the set-up of the next",
			edits: []edit{{"l.closed || ctx.Err() != nil {", "l.closed {"}},
		},
		{
			name: "min-at-stays", file: "zcore/watch_table.go",
			why:   "a watch older than all others is overlooked",
			edits: []edit{{"t.minAt = min(t.minAt, at)\n", ""}},
		},
		{
			name: "min-at-blindly-raised", run: "TestWatchEnters", file: "zcore/watch_table.go",
			why:   "a watch that entered while another reader looked is overlooked",
			edits: []edit{{"if t.entered == entered {", "if t.entered >= entered {"}},
		},
		{
			name: "view-stays", run: "TestReadWhileCommit", limit: 15 * time.Second, file: "zcore/read.go",
			why:   "a read that waited for a newer view goes on with the old one",
			edits: []edit{{"\t\tr.renew()\n", ""}},
		},
		{
			name: "end-acknowledges", run: "TestEndIsNo", file: "zcore/watch_pin.go",
			why:   "when the server ends, readers that wait for pins are shown what others must not see",
			edits: []edit{{"case l.c.ctx.Err() != nil:", "case l.c.isFailed():"}},
		},
		{
			name: "killed-twice", run: "TestOneProcess", file: "zcore/watch_fault.go",
			why:   "a process that is faulty on several links is counted for each",
			edits: []edit{{"return c.killing[pid] == 1, func() {", "return true, func() {"}},
		},
		{
			name: "late-nak-kills", run: "TestLateReply", file: "zcore/watch_pin.go",
			why:   "a client that stops a watch and then says nak to its pin is killed",
			edits: []edit{{"if msg == \"ack\" || w.ctx.Err() != nil {", "if msg == \"ack\" {"}},
		},
		{
			name: "closed-link-stays", run: "TestCloseRight", limit: 30 * time.Second, file: "zcore/watch_link.go",
			why:   "a link that is closed as its last pin is called off stays, and readers wait for it for ever",
			edits: []edit{{"\tif over {\n\t\tl.stop(errLinkEnded)\n\t}\n", "\t_ = over\n"}},
		},
		{
			name: "streams-out-of-order", run: "TestStreamsAscend", file: "zcore/watch_link.go",
			why:   "requests made at once come in another order than that of their streams",
			edits: []edit{{"\tif !l.ended { // here, so that streams ascend\n\t\tl.out = append(l.out, watchproto.Line(stream, pin.String())...)\n\t}\n\tl.mu.Unlock()\n\tl.wake()\n", "\tl.mu.Unlock()\n\tif stream%4 == 0 {\n\t\ttime.Sleep(time.Millisecond)\n\t}\n\tl.push(stream, pin.String())\n"}},
		},
		{
			name: "reader-not-woken", run: "TestTwoReaders", limit: 30 * time.Second, file: "zcore/watch_link.go",
			why:   "of two readers of a link the second is not told of what the first left",
			edits: []edit{{"more := len(l.out) > 0\n", "more := false\n"}},
		},
		{
			name: "packed-pin", run: "TestPackBelow", file: "zcore/watch_pin.go",
			why:   "a pin names a revision that is packed away",
			edits: []edit{{"revs = append(revs, m.at)\n", ""}},
		},
		{
			name: "packed-view-fails-readers", run: "TestPackAbove", file: "zcore/watch_pin.go",
			why:   "readers get errors because a view that is there is packed away",
			edits: []edit{{"if err != nil && isAnswer(err) {", "if err != nil && err == nil {"}},
		},
		{
			name: "packed-set-up-fails-all", run: "TestPackAbove", file: "zcore/watch_setup.go",
			why:   "a watch of what is packed away is EIO mode for everybody",
			edits: []edit{{"\tl.c.log.Error(\"cannot tell", "\tl.c.fail(err)\n\tl.c.log.Error(\"cannot tell"}},
		},
		{
			name: "damage-fails-watches", run: "TestKindsAndCallers", file: "zcore/watch_setup.go",
			why:   "one block whose history is damaged keeps a file from being watched",
			edits: []edit{{"return err != nil && isAnswer(err) && !zodb.IsAbsent(err)", "return false"}},
		},
		{
			name: "clocks-run-in-outages", run: "TestKindsAndCallers", file: "zcore/wait.go",
			why:   "clients are killed for what the database did not answer",
			edits: []edit{{"c.outage.Store(time.Now().UnixNano())", "c.outage.Store(0)"}},
		},
	})
}

// baseMutants break what isolates clients whose page cache is not ours.
func baseMutants() []mutant {
	return in("zcore", "TestBase", nil, []mutant{
		{
			name: "base-sets-shared", file: "zcore/watch_base.go",
			why: "a read in one domain waits for the watches of another",
			edits: []edit{
				{"func (d *Domain) base(", "var shared = newDomain(\"\", false, 1<<20)\n\nfunc (d *Domain) base("},
				{"\td.mu.Lock()\n\tdefer d.mu.Unlock()\n\ts := d.bases[key]", "\td = shared\n\td.mu.Lock()\n\tdefer d.mu.Unlock()\n\ts := d.bases[key]"},
			},
		},
		{
			name: "base-marked-late", file: "zcore/watch_base.go",
			why: "a watch that enters while a block is loaded is not told that it is read",
			edits: []edit{
				{"\ts.read[blk] = false\n", ""}, // but as answered, in the end
			},
		},
		{
			name: "base-marks-forgotten", file: "zcore/watch_table.go",
			why:   "what was read is forgotten when the last watch ends, and the guest's kernel still has it",
			edits: []edit{{"\tdelete(s.watches, w)\n", "\tdelete(s.watches, w)\n\tif len(s.watches) == 0 {\n\t\tclear(s.read)\n\t}\n"}},
		},
		{
			name: "base-answered-early", run: "TestBaseSecondRead", file: "zcore/watch_base.go",
			why:   "a block is shown a second time while the pins of the first read are under way",
			edits: []edit{{"s.read[blk] = false", "s.read[blk] = true"}},
		},
		{
			name: "base-answered-forgotten", run: "TestBaseBlockThatWasAnswered", file: "zcore/watch_base.go",
			why:   "the second read of a page fault waits for a client that cannot map anything meanwhile",
			edits: []edit{{"s.read[p.blk] = true", "s.read[p.blk] = false"}},
		},
		{
			name: "base-error-early", run: "TestBaseReadThatFails", file: "zcore/watch_base.go",
			why: "so does the second read after an error",
			edits: []edit{{
				"\td, err = b.RevFile.Read(ctx, size, off)\n\t}\n",
				"\td, err = b.RevFile.Read(ctx, size, off)\n\t}\n\tif err != nil {\n\t\treturn Data{}, err\n\t}\n",
			}},
		},
		{
			name: "base-marks-ignored", file: "zcore/watch_base.go",
			why:   "a new watch is not told of blocks that were read before",
			edits: []edit{{"range w.set().marked() {", "range w.set().marked()[:0] {"}},
		},
		{
			name: "base-acks-not-waited", file: "zcore/watch_base.go",
			why:   "a block of the base is shown before the watches that must not see it have acknowledged",
			edits: []edit{{"err = c.awaitPins(wctx, msgs, err, wait)", "_ = wait"}},
		},
		{
			name: "base-at-not-rechecked", file: "zcore/watch_base.go",
			why:   "a pin is decided for an at that the base watch has left meanwhile",
			edits: []edit{{"if w.at == at {", "if w.at >= at {"}},
		},
		{
			name: "base-never-poisoned", file: "zcore/watch_base.go",
			why:   "a client that comes through virtfs and does not acknowledge goes on reading",
			edits: []edit{{"\t\t\ts.bad[blk] = struct{}{}\n", ""}},
		},
		{
			name: "base-poisoned-too-much", file: "zcore/watch_base.go",
			why:   "guests lose what the one that did not acknowledge did not depend on",
			edits: []edit{{"if !s.read[blk] {", "if blk >= 0 {"}},
		},
		{
			name: "base-replaced-in-vain", run: "TestBaseReplaced", file: "zcore/watch_setup.go",
			why:   "a client that lost its watch as it moved to another base is told that the new one is refused",
			edits: []edit{{"w, known = nil, true", "w = nil"}},
		},
		{
			name: "stopped-while-replaced", run: "TestStopAsABase", file: "zcore/watch_setup.go",
			why:   "a watch that is stopped as it is replaced sends pins after that",
			edits: []edit{{"\tw.remove()\n\tw.l.c.step(", "\tdefer w.remove()\n\tdefer w.l.c.step("}},
		},
		{
			name: "base-poisoned-meanwhile", run: "TestReadAsAWatchFails", file: "zcore/watch_base.go",
			why:   "a read that asks a watch which is gone, since it did not acknowledge, is answered",
			edits: []edit{{"dom.Failed() || pinsDone(msgs) == nil && set.answered(parts)", "dom.Failed() && set.answered(parts)"}},
		},
		{
			name: "domain-fails-meanwhile", run: "TestReadAsAWatchFails", file: "zcore/read.go",
			why:   "so is one of head, in the moment before a guest's connections are closed",
			edits: []edit{{"err == nil && dom.Failed()", "err != nil && dom.Failed()"}},
		},
		{
			name: "domain-never-fails", file: "zcore/watch_fault.go",
			why:   "a guest that does not acknowledge goes on reading",
			edits: []edit{{"\t\t\tl.dom.Fail()\n", ""}},
		},
		{
			name: "all-domains-fail", file: "zcore/watch_fault.go",
			why:   "a guest that does not acknowledge takes the host with it",
			edits: []edit{{"\t\t\tl.dom.Fail()\n", "\t\t\tl.dom.Fail()\n\t\t\tl.c.host.Fail()\n"}},
		},
		{
			name: "failed-domain-joined", run: "TestDomainFailsWhileOneJoins", file: "zcore/domains.go",
			why:   "who mounts in the moment in which a domain fails is in it, and reads EIO until it mounts again",
			edits: []edit{{" && !o.dom.Failed() {", " {"}},
		},
		{
			name: "failed-domain-entered", pkg: "p9srv", run: "TestDomainFailsMeanwhile", file: "p9srv/conn.go",
			why:   "so does who was told its domain and enters it after it has failed",
			edits: []edit{{"\tif d.Failed() {\n\t\treturn false\n\t}\n", ""}},
		},
	})
}
