package mutants

// historyMutants break what says which block changed when.
func historyMutants() []mutant {
	return in("zcore/history", "TestOracle", []string{"-histories", "1500"}, []mutant{
		{
			name: "track-unchecked", file: "zcore/history/track.go",
			why:   "a lookup that a published commit has outdated is tracked",
			edits: []edit{{"\tif w != 0 {\n\t\treturn w\n\t}\n\tif f.Lost()", "\tif f.Lost()"}},
		},
		{
			name: "file-unchecked", pkg: "zcore", run: "TestZBigFileThat", file: "zcore/history/track.go",
			why:   "a ZBigFile that changes while it is looked up is served as it was",
			edits: []edit{{"max(t.touchedAfter(bf.Oid, v), t.pathTouched(path, v))", "t.pathTouched(path, v)"}},
		},
		{
			name: "node-uncapped", pkg: "zcore", run: "TestNodeLoaded", file: "zcore/history/nodes.go",
			why:   "a node whose load was under way as it changed is taken for the current one",
			edits: []edit{{"min(rec.Until, t.firstTouch(oid, from))", "rec.Until"}},
		},
		{
			name: "block-uncapped", file: "zcore/history/blocks.go",
			why:   "a block whose load was under way as it changed is taken for the current one",
			edits: []edit{{"min(until, t.firstTouch(key.oid, from))", "until"}},
		},
		{
			name: "publish-keeps-nodes", file: "zcore/history/history.go",
			why:   "nodes stay valid beyond the commit that changes them",
			edits: []edit{{"\t\t\tt.nodes.closeAt(oid, c.Tid)\n", ""}},
		},
		{
			name: "publish-keeps-blocks", file: "zcore/history/history.go",
			why:   "blocks stay valid beyond the commit that changes them",
			edits: []edit{{"\t\t\tt.blocks.closeAt(oid, c.Tid)\n", ""}},
		},
		{
			name: "gap-forgotten", file: "zcore/history/history.go",
			why:   "a gap counts as touching nothing",
			edits: []edit{{"if w := max(t.touches.last[oid], t.lastGap); w > v {", "if w := t.touches.last[oid]; w > v {"}},
		},
		{
			name: "trim-despite-holds", run: "TestHoldKeepsCommits", file: "zcore/history/history.go",
			why:   "commits are forgotten that a reader depends on",
			edits: []edit{{"keep = min(keep, h.tid)", "_ = h"}},
		},
		{
			name: "only-holes-change", file: "zcore/history/delta.go",
			why:   "a block that another ZBlk serves now counts as unchanged",
			edits: []edit{{"if b.mapping() != r.m {", "if b.mapping().Hole != r.m.Hole {"}},
		},
		{
			name: "no-size-path", file: "zcore/history/delta.go",
			why:   "nobody looks at the size after a node of the file has changed",
			edits: []edit{{"to.files[f] = true", "_ = to.files"}},
		},
		{
			name: "first-size-path", file: "zcore/history/track.go",
			why:   "the nodes that say the size of a new file are not tracked",
			edits: []edit{{"t.files[bf.Oid] = f\n\tt.addNodes(f, path)\n", "t.files[bf.Oid] = f\n"}},
		},
		{
			name: "size-path-stays", file: "zcore/history/delta.go",
			why:   "the nodes that say the size after a commit are not tracked",
			edits: []edit{{"t.addNodes(f, s.path)\n", ""}},
		},
		{
			name: "new-nodes-untracked", file: "zcore/history/delta.go",
			why:   "the nodes that a split brought onto a block's path are not tracked",
			edits: []edit{{"t.addNodes(f, r.path)\n", ""}},
		},
		{
			name: "one-block-per-zblk", file: "zcore/history/delta.go",
			why:   "of two blocks that one ZBlk serves only the first counts as changed",
			edits: []edit{{"t.blkRefs.appendOf(buf[:0], oid) {", "t.blkRefs.appendOf(buf[:0], oid)[:min(1, len(t.blkRefs.appendOf(buf[:0], oid)))] {"}},
		},
		{
			name: "zblk-stays", file: "zcore/history/delta.go",
			why:   "the ZBlk that a block was mapped to before is still taken for its own",
			edits: []edit{{"t.dropBlk(f, r.blk, b.mapping())\n", ""}},
		},
		{
			name: "removed-keys-missed", file: "zcore/history/delta.go",
			why:   "a block that became a hole counts as unchanged",
			edits: []edit{{"a.Keys[i] < b.Keys[j]:\n\t\t\tadd(a.Keys[i])\n", "a.Keys[i] < b.Keys[j]:\n"}},
		},
		{
			name: "last-child-only", file: "zcore/history/delta.go",
			why:   "of children that changed side by side only the last is looked at",
			edits: []edit{{"out[n-1].hi = s.hi\n", "out[n-1] = s\n"}},
		},
		{
			name: "hull-stays", file: "zcore/history/track.go",
			why:   "a node whose range has grown counts for its first range only",
			edits: []edit{{"min(r.lo, s.Lo), max(r.hi(), s.Hi)", "r.lo, r.hi()"}},
		},
		{
			name: "rev-before-at", file: "zcore/history/file.go",
			why:   "a change at the very tid asked for is not found",
			edits: []edit{{"if revs[i] <= at {", "if revs[i] < at {"}},
		},
		{
			name: "revs-pruned", file: "zcore/history/file.go",
			why:   "the newest change before the tail is forgotten, which is the answer for what comes after",
			edits: []edit{{"for len(revs) >= 2 && revs[1] <= tail {", "for len(revs) >= 1 && revs[0] <= tail {"}},
		},
		{
			name: "rev-by-serial", file: "zcore/history/revat.go",
			why:   "when the ZBlk changed counts, not when the block came to be mapped to it",
			edits: []edit{{"changed := pathMax(path)\n", "changed := min(best, pathMax(path))\n"}},
		},
		{
			name: "end-points-compared", file: "zcore/history/revat.go",
			why: "a block that was another and is as before again counts as unchanged",
			edits: []edit{{"\t\tout = append(out, blk)\n", `		m1, _, _ := t.Lookup(ctx, f.BigFile, blk, at)
		m2, _, _ := t.Lookup(ctx, f.BigFile, blk, v)
		s1, _ := t.serialInDB(ctx, m1.ZBlk, at)
		s2, _ := t.serialInDB(ctx, m2.ZBlk, v)
		if m1 == m2 && s1 == s2 {
			continue
		}
		out = append(out, blk)
`}},
		},
		{
			name: "recent-ignored", file: "zcore/history/revat.go",
			why:   "a watch is not told of blocks that were first read after its revision",
			edits: []edit{{"for i := len(f.recent) - 1; i >=", "for i := -1; i >="}},
		},
		{
			name: "recent-unsorted", run: "TestRecentInOrder", file: "zcore/history/file.go",
			why:   "a block that was tracked late as of an old view hides those behind it",
			edits: []edit{{"for i > 0 && f.recent[i-1].since", "for i > len(f.recent) && f.recent[i-1].since"}},
		},
		{
			name: "load-shared", pkg: "zcore", run: "TestReadDoesNotJoin", file: "zcore/history/blocks.go",
			why:   "readers at different views share a load",
			edits: []edit{{"callKey{oid: zblk, stamp: t.stamp(zblk, at)}", "callKey{oid: zblk}"}},
		},
		{
			name: "load-shared-in-gap", run: "TestLoadInAGap", file: "zcore/history/blocks.go",
			why:   "a load as of a revision inside a gap is shared with one from before the gap",
			edits: []edit{{"if at < t.tail || t.unknown(at) {", "if at < t.tail {"}},
		},
		{
			name: "ended-load-joined", run: "TestEndedLoad", file: "zcore/history/blocks.go",
			why:   "a reader joins a load that has ended, of a revision that only a forgotten commit tells from its own",
			edits: []edit{{"t.endCall(key, c) // while", "// while"}},
		},
		{
			name: "batch-of-now", pkg: "zcore/zodb/filestorage", run: "TestBatch", file: "zcore/zodb/filestorage/batch.go",
			why:   "objects loaded together are the newest, whatever was asked for",
			edits: []edit{{"r.Tid > b.at || ", ""}},
		},
		{
			name: "template-of-any-length", pkg: "zcore/zdata", run: "TestTemplate", file: "zcore/zdata/template.go",
			why:   "a record whose length does not fit passes for data",
			edits: []edit{{"if n != uint64(size) {", "if n == ^uint64(size) {"}},
		},
		{
			name: "late-load-noted", file: "zcore/history/track.go",
			why:   "the serial of what a slow reader loaded is taken for that of a newer revision",
			edits: []edit{{"b.mapping() == m && f.current(b, v)", "b.mapping() == m"}},
		},
	})
}
