package mutants

// qidMutants give numbers of files out twice: guests' kernels tell files, and what they have cached of them,
// apart by these.
func qidMutants() []mutant {
	return in("zcore/tree", "TestNumbers|TestRevisionsAreForgotten|TestSuite$", nil, []mutant{
		{
			name: "qids-of-last-instance", file: "zcore/tree/fs.go",
			why:   "a server that is started anew gives out the numbers of the one before it",
			edits: []edit{{"(1 + rand.Uint64N(1<<(63-inoBits)-1)) << inoBits", "(1 + rand.Uint64N(1)) << inoBits"}},
		},
		{
			name: "qids-reused", file: "zcore/tree/fs.go",
			why:   "the number of a file that was forgotten goes to another one",
			edits: []edit{{"fs.inoBase + fs.inoLast.Add(1)", "fs.inoBase + fs.inoLast.Add(1)%1024"}},
		},
		{
			name: "qids-by-oid", file: "zcore/tree/bigfile.go",
			why:   "a bigfile has the same number in every revision",
			edits: []edit{{"fileBase: fileBase{s.fs.newNode()}, snap", "fileBase: fileBase{node{s.fs, s.fs.inoBase + 1<<30 + uint64(oid)}}, snap"}},
		},
		{
			name: "qids-without-path", pkg: "p9srv", run: "TestQids", file: "p9srv/file.go",
			why:   "a guest's kernel takes files of one kind for the same",
			edits: []edit{{"q := p9.QID{Path: r.ID()}", "q := p9.QID{}"}},
		},
	})
}
