package nplusone

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/gorminfra/infra/internal/hook"
)

// Place is a line of the program.
type Place struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// String returns the line as an editor opens it: "blog/posts.go:41", relative
// to the working directory where that is shorter.
func (p Place) String() string { return fmt.Sprintf("%s:%d", shortFile(p.File), p.Line) }

func placeOf(pc uintptr) Place {
	f := hook.SiteFrame(pc)
	return Place{Function: f.Function, File: f.File, Line: f.Line}
}

// place is the line that ran the statement.
func (s *site) place() *Place {
	if s == nil || len(s.pcs) == 0 {
		return nil
	}
	p := placeOf(s.pcs[0])
	return &p
}

// stack is the whole site, innermost first.
func (s *site) places() []Place {
	if s == nil {
		return nil
	}
	places := make([]Place, len(s.pcs))
	for i, pc := range s.pcs {
		places[i] = placeOf(pc)
	}
	return places
}

// loopLine is the line of the loop: in the function that first loaded the
// parents, directly or by others, and then ran the query from another line; the
// outermost such function, as both may use one helper. Without parents it is the
// query's.
func loopLine(query, parent []Place) *Place {
	if len(query) == 0 {
		return nil
	}
	for i := len(query) - 1; i >= 0; i-- {
		for j := range parent {
			if enclosing(query[i].Function) == enclosing(parent[j].Function) && query[i].Line != parent[j].Line {
				return &query[i]
			}
		}
	}
	for i := range query {
		for j := range parent {
			if enclosing(query[i].Function) == enclosing(parent[j].Function) {
				return &query[i]
			}
		}
	}
	return &query[0]
}

var closure = regexp.MustCompile(`(\.func\d+|\.gowrap\d+|-range\d+|\.\d+)+$`)

// enclosing is the declared function that a closure, or the body of a range over
// a function, stands in.
func enclosing(function string) string { return closure.ReplaceAllString(function, "") }

// shortFunction drops the path of the package.
func shortFunction(function string) string {
	return function[strings.LastIndexByte(function, '/')+1:]
}

var workingDirectory = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return dir
})

func shortFile(file string) string {
	if dir := workingDirectory(); dir != "" {
		if rel, err := filepath.Rel(dir, file); err == nil && len(rel) < len(file) {
			return rel
		}
	}
	return file
}
