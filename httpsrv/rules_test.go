package httpsrv

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wcfs/zcore"
)

const rulesDir = "../packaging/prometheus"

// The alert rules are ones that Prometheus takes, and fire when they should.
func TestAlertRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = rulesDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// Every metric that the rules and the dashboard name is one that the server has.
func TestMetricsNamed(t *testing.T) {
	s := show(t, zcore.Options{}, 0)
	_, text, _ := s.get("/metrics")
	named := 0
	for _, file := range []string{"alerts.yml", "grafana.json"} {
		rules, err := os.ReadFile(filepath.Join(rulesDir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bwcfs_\w+`).FindAllString(string(rules), -1) {
			named++
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s: the server has no metric %s", file, name)
			}
		}
	}
	if named < 20 {
		t.Errorf("%d metrics are named", named)
	}
}
