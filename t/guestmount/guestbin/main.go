// Command guestbin runs in test guests: it does what the plan in the file of its first argument says.
// It is built static, since such guests have no libraries.
package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"wcfs/t/guestmount/plan"
	"wcfs/zcore/tree/treetest"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "block" {
		block(os.Args[2])
		return
	}
	p, err := plan.Load(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, t := range p.Trees {
		result(t.Step, tree(t, p.Manifest))
	}
	for _, w := range p.Watches {
		result(w.Step, watch(w, p.Manifest))
	}
	for _, k := range p.Kills {
		result(k.Step, kill(k))
	}
	var wg sync.WaitGroup
	for _, f := range p.Follows {
		wg.Go(func() { result(f.Step, follow(f)) })
	}
	wg.Wait()
}

func result(step string, err error) {
	if err != nil {
		fmt.Printf("result %s FAIL %s\n", step, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	fmt.Printf("result %s ok\n", step)
}

// tree runs the suite.
func tree(t plan.Tree, m *treetest.Manifest) error {
	return treetest.All(&treetest.Env{
		FS: treetest.Path{Dir: t.Dir, Pread: true}, Manifest: m,
		NoBlksize: true, NoWatch: t.NoWatch,
	})
}
