package mutants

// fileMutants break what follows when one file fails.
func fileMutants() []mutant {
	return in("zcore", "TestIsolation|FileFails|FileThatFails|TestHealth", nil, []mutant{
		{
			name: "failed-file-answers", file: "zcore/read.go",
			why:   "a READ whose pins are off, as its file has failed, is answered with what a client must not see",
			edits: []edit{{"if failed := f.failed(); failed != nil { // as above", "if failed := f.failed(); failed != nil && blk < 0 {"}},
		},
		{
			name: "failed-file-stays-cached", file: "zcore/filefail.go",
			why:   "pages of a file that has failed are left",
			edits: []edit{{"return c.pc.Drop(f.Oid())", "return nil"}},
		},
		{
			name: "failed-file-uploaded", file: "zcore/filefail.go",
			why:   "an upload to a file that has failed comes after its pages were dropped",
			edits: []edit{{"\t\tcase <-busy:\n", "\t\tcase <-busy:\n\t\tdefault:\n"}},
		},
		{
			name: "failed-file-rushed", file: "zcore/filefail.go",
			why:   "the page of a READ under way is dropped before the answer is there",
			edits: []edit{{"if err := c.waitQuiet(ctx, f, blk, tidHead); err != nil {", "if err := ctx.Err(); err != nil && blk >= 0 {"}},
		},
		{
			name: "failed-file-pins-on", run: "TestNoPinAfter", file: "zcore/filefail.go",
			why:   "a pin comes after the line that says that its watch has ended",
			edits: []edit{{"\tw.remove()\n\tl.c.step(", "\tdefer w.remove()\n\tdefer l.c.step("}},
		},
		{
			name: "failed-file-unpins", file: "zcore/watch_setup.go",
			why:   "a client that watches again is sent back to the head of a file that has failed",
			edits: []edit{{"if w.f.h.Lost() {", "if w.f.h.Lost() && v == 0 {"}},
		},
		{
			name: "failed-file-watched", file: "zcore/watch_setup.go",
			why:   "a watch that enters as its file fails is taken for one that is set up",
			edits: []edit{{"if err := f.failed(); err != nil { // before", "if err := f.failed(); err != nil && v0 == nil { // before"}, {"\tw, known, err := l.enter(ctx, on, f, r, hold)\n", "\tv0 := on\n\tw, known, err := l.enter(ctx, on, f, r, hold)\n"}, {"return f.failed()\n", "return nil\n"}},
		},
		{
			name: "failed-file-held-against", file: "zcore/read.go",
			why:   "the first readers of a file that is made anew get EIO for what happened to the old one",
			edits: []edit{{"\tif f.failed() == nil {\n\t\tdom.erred", "\t{\n\t\tdom.erred"}},
		},
		{
			name: "failed-file-ends-all", run: "FileFails", file: "zcore/filefail.go",
			why:   "one file that fails takes the others with it",
			edits: []edit{{"return c.opts.FileChangeEndsAll && errors.As", "return errors.As"}},
		},
	})
}
