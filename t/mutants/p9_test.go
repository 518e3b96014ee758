package mutants

import "time"

// p9Mutants break what clients of 9P count on.
func p9Mutants() []mutant {
	return in("p9srv", "", nil, []mutant{
		{
			name: "auth-not-supported", run: "TestDiodsClients", file: "p9srv/dispatch.go",
			why:   "diod's clients do not connect",
			edits: []edit{{"tAuth:     {refuse: linux.ENOENT}", "tAuth:     {refuse: linux.EOPNOTSUPP}"}},
		},
		{
			name: "walk-part-makes-fid", run: "TestWalkPart", limit: 20 * time.Second, file: "p9srv/walk.go",
			why:   "a fid stands for another file than the client believes",
			edits: []edit{{"\t\tat.drop()\n\t\tif err != nil {\n\t\t\tif i == 0", "\t\tif err != nil {\n\t\t\tr.newFile = newFile(r.s, at)\n\t\t\tif i == 0"}},
		},
		{
			name: "walk-hides-errors", run: "TestWalkPart", file: "p9srv/walk.go",
			why:   "what cannot be read now is ENOENT to Linux",
			edits: []edit{{"if i == 0 || !ofName(err) {", "if i == 0 {"}},
		},
		{
			name: "flush-only-answers", run: "TestFlushStream|TestFlushRead", file: "p9srv/session.go",
			why:   "a read that nobody waits for any more goes on",
			edits: []edit{{"\t\ttarget.cancel()\n", ""}},
			limit: 20 * time.Second,
		},
		{
			name: "clunk-overtakes", run: "TestClunkComesLast", file: "p9srv/ops.go",
			why:   "a request gets to the next file under its fid",
			edits: []edit{{"f.clunk, r.later = r, true\n", ""}},
		},
		{
			name: "reply-after-tversion", run: "TestVersionAnew", file: "p9srv/session.go",
			why:   "a reply of the old session is taken for one of the new",
			edits: []edit{{"dead := s.dead", "dead := false"}},
		},
		{
			name: "moved-fid-leaks", run: "TestAnswers", limit: 20 * time.Second, file: "p9srv/dispatch.go",
			why:   "a walk in place leaks the node it came from",
			edits: []edit{{"if r.old != nil && r.newFile != nil {", "if false {"}},
		},
		{
			name: "refused-conn-counted", run: "TestRefusedIsNotCounted", file: "p9srv/server.go",
			why: "connections that were refused keep others out",
			edits: []edit{
				{"\tif !s.takeConn() {\n", "\tdefer s.conns.Add(-1)\n\tif s.conns.Add(1) > int64(s.opts.MaxConns) {\n"},
				{"\tdefer s.conns.Add(-1)\n\ts.accepted", "\ts.accepted"},
			},
		},
	})
}
