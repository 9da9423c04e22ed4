package cachehook

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The guide names lines of the log and metrics: those that there are.
func TestTheGuideNamesLinesAndMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../docs/caching.md")
	must(t, err)
	files, err := filepath.Glob("*.go")
	must(t, err)
	var source strings.Builder
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			text, err := os.ReadFile(name)
			must(t, err)
			source.Write(text)
		}
	}
	_, after, found := strings.Cut(string(guide), "### What the log says\n")
	table, _, _ := strings.Cut(after, "\n## ")
	lines := 0
	for _, row := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(table, -1) {
		for _, line := range regexp.MustCompile("`(.*?)`").FindAllStringSubmatch(row[1], -1) {
			lines++
			if !strings.Contains(source.String(), `"cachehook: `+line[1]) {
				t.Errorf("no line of the log begins with %q", line[1])
			}
		}
	}
	if !found || lines < 10 {
		t.Errorf("%d lines of the log in the guide", lines)
	}
	metrics := regexp.MustCompile(`Name: "(cache_\w+)"`).FindAllStringSubmatch(source.String(), -1)
	for _, m := range metrics {
		if !strings.Contains(string(guide), "`"+m[1]+"`") {
			t.Errorf("the guide does not tell of %s", m[1])
		}
	}
	for _, name := range regexp.MustCompile("`(cache_[a-z_]+)").FindAllStringSubmatch(string(guide), -1) {
		if !strings.Contains(source.String(), `"`+name[1]+`"`) {
			t.Errorf("there is no metric %s", name[1])
		}
	}
	if len(metrics) < 20 {
		t.Errorf("%d metrics in the source", len(metrics))
	}
}
