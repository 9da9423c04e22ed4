package examples

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// given is what the README's fragments assume to exist.
const given = `
var (
	ctx      context.Context
	db       *gorm.DB
	rdb      redis.UniversalClient
	plugin   *infra.Plugin
	id       uint
	w        http.ResponseWriter
	r        *http.Request
	product  struct{ ID uint }
	account  struct{ ID uint }
	products []struct{ ID uint }

	categories []struct{ ID uint }
	orders     []struct{ ID uint }

	mux      *http.ServeMux
	key      []byte

	dsn, dsn1, dsn2, dsn3, other, otherReplica string
)

type (
	Product struct{ ID uint }
	User    struct{ ID uint }
	Order   struct{ ID uint }
	Event   struct{ ID uint }
	Entry   struct{ ID uint }
)

func computeTop(context.Context) ([]string, error) { return nil, nil }
func listOrders(*gorm.DB)                           {}
`

const imports = `import (
	"context"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorminfra/infra"
	"github.com/gorminfra/infra/cachehook"
	"github.com/gorminfra/infra/limithook"
	"github.com/gorminfra/infra/metrics"
	"github.com/gorminfra/infra/nplusone"
	"github.com/gorminfra/infra/resolver"
	"github.com/gorminfra/infra/slowlog"
)

var (
	_ = fmt.Sprint
	_ = log.Print
	_ *testing.T
	_ time.Duration
	_ prometheus.Registerer
	_ redis.UniversalClient
	_ dbresolver.Config
	_ stdlib.OptionOpenDB
	_ postgres.Config
	_ cachehook.Config
	_ limithook.Config
	_ metrics.Config
	_ nplusone.Config
	_ resolver.Config
	_ slowlog.Config
)
`

// TestReadmeCompiles builds each Go fragment of the README, so that it never
// shows a name that is not there.
func TestReadmeCompiles(t *testing.T) { compiles(t, "../README.md", 10) }

// TestGuideToLimitsCompiles does the same for what is told of limits.
func TestGuideToLimitsCompiles(t *testing.T) { compiles(t, "../docs/limits.md", 7) }

// TestGuideToRoutingCompiles does the same for what is told of routing.
func TestGuideToRoutingCompiles(t *testing.T) { compiles(t, "../docs/routing.md", 7) }

// TestGuideToCachingCompiles does the same for what is told of caching.
func TestGuideToCachingCompiles(t *testing.T) { compiles(t, "../docs/caching.md", 9) }

// compiles builds the Go fragments of a file, of which there are at least so many.
func compiles(t *testing.T, file string, least int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < least {
		t.Fatalf("only %d Go fragments found in %s", len(blocks), file)
	}
	// Inside the module, so that its requirements apply; go ignores the folder
	// unless it is named.
	dir, err := os.MkdirTemp(".", "_readme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	args := []string{"vet"}
	for i, block := range blocks {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p, "fragment.go"), []byte(program(block[1])), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "./"+p)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// program makes a fragment a whole file. It may be statements, or fields of the
// configuration.
func program(fragment string) string {
	fragment = strings.ReplaceAll(fragment, "{…}", "{}") // whatever the reader has
	if field := regexp.MustCompile(`^([A-Z]\w*): `).FindStringSubmatch(fragment); field != nil {
		of := "resolver.Config"
		if field[1] == "Resolver" {
			of = "infra.Config"
		}
		fragment = "_ = " + of + "{\n" + fragment + "}\n"
	}
	switch {
	case strings.HasPrefix(fragment, "package "):
		return fragment
	case strings.HasPrefix(fragment, "func "):
		return "package fragment\n" + imports + given + fragment
	}
	// What a fragment declares is used, whatever it goes on to do with it.
	uses := ""
	for _, name := range []string{"plugin", "db", "ctx", "report", "err", "top", "cfg", "warm", "strict", "functions"} {
		if regexp.MustCompile(`(?m)^(\w+, )*` + name + `(, \w+)* :=`).MatchString(fragment) {
			uses += "\n_ = " + name
		}
	}
	return "package fragment\n" + imports + given + "func _() {\n" + fragment + uses + "\n}\n"
}
