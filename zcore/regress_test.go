package zcore

import (
	"fmt"

	"wcfs/zcore/zodb"
)

// Each regression test is a way in which systems of this kind crashed, hung or corrupted data:
//
//	just started, old data, watch at head, first read    OldDataWatchAtTailThenFirstRead; t/contract JustStarted
//	change of a block whose history is not covered       ChangeOfBlockWithoutKnownHistory
//	set-up at an old revision, from the database         SetupAtOldRevisionAsksTheDatabase
//	watch before creation; created and grown while on    WatchBeforeCreation; t/contract NewFile
//	hole gets data, data becomes a hole                  HoleGetsDataAndDataBecomesAHole; t/contract CacheOfHoles
//	growth, shrink, regrowth, reads past the end         GrowthShrinkRegrowthWithReadsPastTheEnd; t/contract CacheAndSize
//	size during a bucket split                           SizeDuringBucketSplit
//	split, merge, rotation, inline root, emptied tree,
//	shared blktab, a ZBlk under two keys or moved, undo,
//	ZBlk0 to ZBlk1, one chunk of a ZBlk1                 TreesThatChange, a subtest each
//	pack below and above the watch                       PackBelowTheWatch, PackAboveTheWatch
//	read tracked between publish and view                ReadWhileCommitIsBetweenPublishAndView
//	watch set up between view and announce               WatchSetUpBetweenViewAndAnnounce, ...BetweenDeltaAndViewOfAHole
//	advance racing a commit and a read                   AdvanceRacesCommitAndRead
//	second read while a pin is queued                    SecondReadWaitsForQueuedPin
//	read joining a load begun before the commit          ReadDoesNotJoinALoadBegunBeforeTheCommit
//	node loaded at h, inserted after t                   NodeLoadedBeforeTheCommitIsInsertedAfterIt
//	stop with a pin outstanding, stat meanwhile          StopWatchingWithPinOutstanding; t/contract NoWaitForPins
//	1000 appends a second against a slow load            ManyAppendsAgainstASlowLoad
//	fault retry under mmap_lock                          BlockIsLeftAloneWhileItsReadIsUnderWay
//
// Those in regress_link_test.go were found here. t/mutants breaks the code for each and sees it noticed.

// pins sets up a watch and returns which block is pinned to what, acknowledging all.
func (tl *testLink) pins(f zodb.Oid, at zodb.Tid) map[Blk]string {
	tl.t.Helper()
	tl.send("1 watch %s @%s", f, at)
	return tl.pinsUntil("1 ok")
}

func (tl *testLink) pinsUntil(last string) map[Blk]string {
	tl.t.Helper()
	got := map[Blk]string{}
	for {
		line := tl.recv()
		if line == last {
			return got
		}
		var stream uint64
		var oid, rev string
		var blk Blk
		if _, err := fmt.Sscanf(line, "%d pin %s #%d @%s", &stream, &oid, &blk, &rev); err != nil {
			tl.t.Fatalf("got %q, want a pin or %q", line, last)
		}
		got[blk] = rev
		tl.send("%d ack", stream)
	}
}

func (w *world) wantPins(got map[Blk]string, want map[Blk]zodb.Tid) {
	w.t.Helper()
	text := map[Blk]string{}
	for blk, rev := range want {
		text[blk] = rev.String()
	}
	if fmt.Sprint(got) != fmt.Sprint(text) {
		w.t.Fatalf("pins %v, want %v", got, text)
	}
}

// readPinned reads a block in the background, and acknowledges the pin that must come.
func (w *world) readPinned(tl *testLink, stream int, blk Blk, rev zodb.Tid, want string) {
	w.t.Helper()
	got := background(func() string { return w.read(blk) })
	tl.want(fmt.Sprintf("%d pin %s #%d @%s", stream, w.f, blk, rev))
	tl.send("%d ack", stream)
	if s := <-got; s != want {
		w.t.Fatalf("block %d is %q, want %q", blk, s, want)
	}
}

func (w *world) want(blk Blk, want string) {
	w.t.Helper()
	if s := w.read(blk); s != want {
		w.t.Fatalf("block %d is %q, want %q", blk, s, want)
	}
}
