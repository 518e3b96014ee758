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
		m.hangs = m.limit != 0
		if !m.hangs {
			m.limit = 3 * time.Minute
		}
		m.cheap = m.run != "" || pkg != "zcore" // else it takes all tests of the largest package
		if m.run == "" {
			m.run = run
		}
		if m.pkg == "" {
			m.pkg, m.args = pkg, args
		}
	}
	return ms
}
