package resolver

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
)

// faults collects what is wrong with a configuration.
type faults struct {
	errs  []error
	names map[string]string // of nodes and groups, by the field that had it first
	bases map[string]bool   // names of Config.Replicas
	nodes int
}

func (f *faults) add(field string, value any, rule string) {
	f.errs = append(f.errs, fmt.Errorf("resolver: %s is %v: %s", field, value, rule))
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	f := &faults{names: map[string]string{}, bases: map[string]bool{}}
	switch {
	case c.Source == nil:
		f.names[primaryName] = ""
	case c.Source.given():
		f.given(*c.Source)
	default:
		f.node("Source", *withDefaultName(c.Source, primaryName), primaryName)
	}
	f.replicas("Replicas", c.Replicas, "", nil)
	for i, n := range c.Replicas {
		f.bases[nameOf(i, n, "")] = true
	}
	f.groups(c.Groups)
	if f.nodes > maxReplicas {
		f.add("Replicas", fmt.Sprintf("%d nodes long, with those of Groups", f.nodes), "must be at most 256")
	}
	if c.MaxLag < 0 {
		f.add("MaxLag", c.MaxLag, "must not be negative; zero is the default of 5s")
	}
	if c.Pool.Max < 0 {
		f.add("Pool.Max", c.Pool.Max, "must not be negative; zero is the default of 50")
	}
	if c.Pool.Max > 0 && c.Pool.Min > c.Pool.Max {
		f.add("Pool.Min", c.Pool.Min, fmt.Sprintf("must not exceed Pool.Max, which is %d", c.Pool.Max))
	}
	if c.Pool.Max > 0 && c.Pool.Reserve >= c.Pool.Max {
		f.add("Pool.Reserve", c.Pool.Reserve, fmt.Sprintf("must be below Pool.Max, which is %d", c.Pool.Max))
	}
	if c.Probe.Interval != 0 && c.Probe.Interval < minInterval {
		f.add("Probe.Interval", c.Probe.Interval, "must be at least 1ms; zero is the default of 250ms")
	}
	if c.Probe.Timeout != 0 && c.Probe.Timeout < minInterval {
		f.add("Probe.Timeout", c.Probe.Timeout, "must be at least 1ms; zero is the default of 250ms")
	}
	if c.WithoutPrimary > Strict {
		f.add("WithoutPrimary", c.WithoutPrimary, "must be Freeze or Strict")
	}
	for name, v := range c.Functions {
		if v != ReadOnly && v != Volatile {
			f.add(fmt.Sprintf("Functions[%q]", name), v, "must be ReadOnly or Volatile")
		}
	}
	f.priorities(c.Priorities)
	c.Session.validate(f.add)
	return errors.Join(f.errs...)
}

func (f *faults) priorities(p Priorities) {
	for _, c := range []struct {
		name string
		Class
	}{{"Critical", p.Critical}, {"Normal", p.Normal}, {"Background", p.Background}} {
		if c.MaxLag < 0 {
			f.add("Priorities."+c.name+".MaxLag", c.MaxLag, "must not be negative")
		}
	}
}

func (f *faults) groups(groups []Group) {
	for i, g := range groups {
		field := fmt.Sprintf("Groups[%d]", i)
		f.name(field, g.Name)
		if g.Name == "" {
			f.add(field+".Name", `""`, "must be set")
		}
		var bases map[string]bool
		if g.Source != nil {
			f.node(field+".Source", *withDefaultName(g.Source, g.Name+"_source"), "")
		} else {
			bases = f.bases
		}
		f.replicas(field+".Replicas", g.Replicas, g.Name+"_", bases)
		if g.MaxLag < 0 {
			f.add(field+".MaxLag", g.MaxLag, "must not be negative; zero is that of the Config")
		}
		for j, t := range g.Tables {
			if !namesTable(t) {
				f.add(fmt.Sprintf("%s.Tables[%d]", field, j), fmt.Sprintf("%T", t), "must be a table's name or a model")
			}
		}
	}
}

// namesTable reports whether t is a name, or may be a model: that is known when
// GORM parses it.
func namesTable(t any) bool {
	if name, ok := t.(string); ok {
		return name != ""
	}
	typ := reflect.TypeOf(t)
	for typ != nil && (typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice) {
		typ = typ.Elem()
	}
	return typ != nil && typ.Kind() == reflect.Struct
}

// replicas checks a list; bases are the names that a bare Name may refer to.
func (f *faults) replicas(field string, nodes []Node, prefix string, bases map[string]bool) {
	for i, n := range nodes {
		at := fmt.Sprintf("%s[%d]", field, i)
		if n.refers() && bases != nil {
			if !bases[n.Name] {
				f.add(at+".Name", fmt.Sprintf("%q", n.Name), "without DSN and Dialector must name one of Config.Replicas")
			}
			continue
		}
		n.Name = nameOf(i, n, prefix)
		f.node(at, n, "")
	}
}

// given reports whether a Source stands for what gorm.Open connected to.
func (n Node) given() bool { return n.DSN == "" && n.Dialector == nil }

// given checks a Source that names what gorm.Open connected to.
func (f *faults) given(n Node) {
	f.nodes++
	f.name("Source", cmp.Or(n.Name, primaryName))
	f.weight("Source", n)
}

// isNil reports whether d is an interface around a nil pointer.
func isNil(d gorm.Dialector) bool {
	v := reflect.ValueOf(d)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// refers reports whether a node of a group stands for one of Config.Replicas.
func (n Node) refers() bool { return n.Name != "" && n.DSN == "" && n.Dialector == nil }

func (f *faults) name(field, name string) {
	if first, taken := f.names[name]; taken && name != "" && first != "" {
		f.add(field+".Name", fmt.Sprintf("%q", name), "must differ from that of "+first)
	}
	if _, taken := f.names[name]; !taken {
		f.names[name] = field
	}
	if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		f.add(field+".Name", fmt.Sprintf("%q", name), "must be at most 64 bytes without blanks and control characters")
	}
}

// node checks one node; allowed is the reserved name that it may have.
func (f *faults) node(field string, n Node, allowed string) {
	f.nodes++
	f.name(field, n.Name)
	if n.Name == primaryName && n.Name != allowed {
		f.add(field+".Name", fmt.Sprintf("%q", n.Name), "is the name of what gorm.Open connected to")
	}
	switch {
	case isNil(n.Dialector):
		f.add(field+".Dialector", fmt.Sprintf("a nil %T", n.Dialector), "must be a Dialector or left out")
	case n.DSN == "" && n.Dialector == nil:
		f.add(field, "without DSN and Dialector", "needs one of them")
	case n.DSN != "" && n.Dialector != nil:
		f.add(field, "with both DSN and Dialector", "needs one of them")
	case n.DSN != "":
		if _, err := pgx.ParseConfig(n.DSN); err != nil {
			f.add(field+".DSN", "set, but not readable"+dsnFault(err), "must be a connection string that pgx.ParseConfig accepts")
		}
	}
	f.weight(field, n)
}

func (f *faults) weight(field string, n Node) {
	if n.Weight > maxWeight {
		f.add(field+".Weight", n.Weight, "must be at most 65536")
	}
}
