// Package arrows proves the picture in ARCHITECTURE.md: who imports whom, and
// what the module asks of those who use it.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorminfra/infra/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

const module = "github.com/gorminfra/infra"

// below says what of ours each package may import. A package that is not here
// has no place in the picture yet.
var below = map[string][]string{
	"":                 {"resolver", "cachehook", "limithook", "nplusone", "slowlog", "metrics", "internal/hook", "internal/scope", "internal/sqltext", "internal/replay"},
	"resolver":         {"internal/hook", "internal/scope", "internal/sqltext", "internal/replay"},
	"cachehook":        {"internal/hook", "internal/scope", "internal/sqltext", "internal/replay"},
	"limithook":        {"internal/hook", "internal/scope", "internal/sqltext"},
	"nplusone":         {"internal/hook", "internal/scope", "internal/sqltext"},
	"slowlog":          {"internal/hook", "internal/scope", "internal/sqltext"},
	"metrics":          {"internal/hook", "internal/scope", "internal/sqltext"},
	"internal/hook":    {"internal/scope", "internal/sqltext", "internal/replay"},
	"internal/scope":   {},
	"internal/sqltext": {},
	"internal/replay":  {},
	"internal/testbed": {},
	"internal/arrows":  {},
}

// libraries says which packages may import something of weight themselves; the
// others reach it through them or not at all. Tests are free.
var libraries = map[string][]string{
	"gorm.io/gorm":                        {"", "resolver", "cachehook", "limithook", "nplusone", "slowlog", "metrics", "internal/hook"},
	"gorm.io/plugin/dbresolver":           {"resolver"}, // takes over its configuration; its clauses are known by their names
	"github.com/prometheus/client_golang": {"metrics"},
	"github.com/redis/go-redis/v9":        {"", "cachehook", "limithook", "internal/testbed"},
	"net/http":                            {"", "limithook", "resolver"},
	"testing":                             {}, // a program must not link it
}

// direct are the modules that the root may require: whoever uses the plugin gets
// them all. ARCHITECTURE.md has the reason for each.
var direct = []string{
	"github.com/cespare/xxhash/v2",
	"github.com/hashicorp/golang-lru/v2",
	"github.com/jackc/pgx/v5",
	"github.com/prometheus/client_golang",
	"github.com/redis/go-redis/v9",
	"go.uber.org/goleak",
	"gorm.io/driver/postgres",
	"gorm.io/gorm",
	"gorm.io/plugin/dbresolver",
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	CgoFiles                           []string
	Standard                           bool
}

// list runs `go list -json` in the root of the module.
func list(t *testing.T, args ...string) map[string]pkg {
	t.Helper()
	// With cgo on, so that files which need it are listed as what they are.
	out := run(t, "1", append([]string{"go", "list", "-json"}, args...)...)
	all := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

func run(t *testing.T, cgo string, args ...string) []byte {
	t.Helper()
	touch(t)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// touch looks at every folder of the module, so that `go test` does not take an
// old answer from its cache: it knows what a test opens, not what go list reads.
func touch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(_ string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // a test elsewhere took its folder away
			return nil
		case err == nil && d.IsDir() && d.Name() != ".." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// name is the package's path within the module; ok is false for others.
func name(importPath string) (_ string, ok bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func TestNoPartImportsAnotherPartOrTheRoot(t *testing.T) {
	t.Parallel()
	for importPath, p := range list(t, "./...") {
		from, _ := name(importPath)
		allowed, ok := below[from]
		if !ok {
			t.Errorf("%s has no place in the picture: give it one here and in ARCHITECTURE.md", importPath)
			continue
		}
		for _, to := range p.Imports {
			if to, ours := name(to); ours && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s/%s", importPath, module, to)
			}
		}
		if from == "internal/hook" {
			continue // its tests run bare and with all parts on
		}
		// Tests may see their own package from outside, all that it stands on,
		// and servers.
		reachable := closure(from)
		reachable["internal/testbed"] = true
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if to, ours := name(to); ours && !reachable[to] {
				t.Errorf("a test of %s imports %s/%s", importPath, module, to)
			}
		}
	}
}

func TestNothingReachesMoreThanThePictureAllows(t *testing.T) {
	t.Parallel()
	for from := range list(t, "./...") {
		from, _ := name(from)
		reachable := closure(from)
		for dep, p := range list(t, "-deps", "./"+from) {
			if to, ours := name(dep); ours && !reachable[to] {
				t.Errorf("%s reaches %s", path.Join(module, from), dep)
			}
			if len(p.CgoFiles) > 0 && !p.Standard {
				t.Errorf("%s reaches %s, which needs cgo", path.Join(module, from), dep)
			}
		}
	}
}

// closure is what from reaches by the arrows, itself included.
func closure(from string) map[string]bool {
	all := map[string]bool{from: true}
	for _, to := range below[from] {
		maps.Copy(all, closure(to))
	}
	return all
}

func TestLibrariesAreKnownWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for importPath, p := range list(t, "./...") {
		from, _ := name(importPath)
		for _, to := range p.Imports {
			for library, allowed := range libraries {
				if (to == library || strings.HasPrefix(to, library+"/")) && !slices.Contains(allowed, from) {
					t.Errorf("%s imports %s", importPath, to)
				}
			}
		}
	}
}

func TestModuleBuildsWithoutCgo(t *testing.T) {
	t.Parallel()
	run(t, "0", "go", "build", "./...")
}

func TestRequirementsStayLeanAndHaveAReason(t *testing.T) {
	t.Parallel()
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	if err := json.Unmarshal(run(t, "0", "go", "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		switch {
		case r.Indirect:
		case !slices.Contains(direct, r.Path):
			t.Errorf("go.mod requires %s, which is not among the modules that it may", r.Path)
		case !bytes.Contains(reasons, []byte("`"+r.Path+"`")):
			t.Errorf("ARCHITECTURE.md gives no reason for %s", r.Path)
		}
	}
	if len(mod.Replace) > 0 {
		t.Error("a replace directive does not reach those who use the module")
	}
}
