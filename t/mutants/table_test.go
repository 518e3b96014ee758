package mutants

import (
	"slices"
	"time"
)

// table has all mutants.
func table() []mutant {
	return slices.Concat(historyMutants(), coreMutants(), fileMutants(), baseMutants(), pinMutants(), qidMutants(), p9Mutants())
}

// in sets what most mutants of a group have in common.
func in(pkg, run string, args []string, ms []mutant) []mutant {
	for i := range ms {
		m := &ms[i]
		if m.limit == 0 {
			m.limit = time.Minute
		}
		if m.run == "" {
			m.run = run
		}
		if m.pkg == "" {
			m.pkg, m.args = pkg, args
		}
	}
	return ms
}
