package nplusone

import (
	"slices"
	"strings"
	"sync"

	"gorm.io/gorm/schema"
)

// catalog turns GORM's schemas into models, once each. It holds as many as the
// program has.
type catalog struct {
	mu     sync.RWMutex // guards the rest
	models map[*schema.Schema]*model
	tables map[string]*model
}

// model returns the model of a *schema.Schema, nil for anything else.
func (c *catalog) model(handle any) *model {
	s, ok := handle.(*schema.Schema)
	if !ok || s == nil {
		return nil
	}
	c.mu.RLock()
	m := c.models[s]
	c.mu.RUnlock()
	if m != nil {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.add(s)
}

// ofTable returns a model of table, nil when none was met: raw SQL has no model
// of its own.
func (c *catalog) ofTable(table string) *model {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tables[table]
}

func (c *catalog) add(s *schema.Schema) *model {
	if m := c.models[s]; m != nil {
		return m
	}
	if c.models == nil {
		c.models, c.tables = make(map[*schema.Schema]*model), make(map[string]*model)
	}
	m := &model{name: s.Name, table: bareTable(s.Table)}
	c.models[s] = m // before its relations, which can lead back
	m.relations = c.relationsOf(s)
	if known := c.tables[m.table]; known == nil || len(known.relations) < len(m.relations) {
		c.tables[m.table] = m
	}
	return m
}

func (c *catalog) relationsOf(s *schema.Schema) []*relation {
	s.Relationships.Mux.RLock()
	found := embeddedIn(&s.Relationships, nil)
	s.Relationships.Mux.RUnlock()
	var all []*relation
	for _, rel := range found {
		// GORM notes has-relations also at their other end.
		if rel.Schema != s || rel.Field == nil || rel.FieldSchema == nil {
			continue
		}
		r := c.relation(rel)
		if !slices.ContainsFunc(all, func(o *relation) bool { return o.name == r.name }) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *relation) int { return strings.Compare(a.name, b.name) })
	return all
}

// embeddedIn collects the relations of a model and of the structs embedded in
// it, where two can have fields of one name.
func embeddedIn(rs *schema.Relationships, all []*schema.Relationship) []*schema.Relationship {
	for _, rel := range rs.Relations {
		all = append(all, rel)
	}
	for _, inner := range rs.EmbeddedRelations {
		all = embeddedIn(inner, all)
	}
	return all
}

func (c *catalog) relation(rel *schema.Relationship) *relation {
	r := &relation{name: rel.Name, single: rel.Type == schema.BelongsTo || rel.Type == schema.HasOne, target: c.add(rel.FieldSchema)}
	if len(rel.Field.EmbeddedBindNames) > 1 {
		r.name = strings.Join(rel.Field.EmbeddedBindNames, ".")
	}
	if rel.JoinTable != nil {
		r.join = bareTable(rel.JoinTable.Table)
	}
	for _, ref := range rel.References {
		switch {
		case ref.ForeignKey == nil:
		case ref.PrimaryValue != "": // polymorphic
			r.typeColumn, r.typeValue = ref.ForeignKey.DBName, ref.PrimaryValue
		case r.join != "" && !ref.OwnPrimaryKey: // the join table's way on
		case rel.Type == schema.BelongsTo:
			if ref.PrimaryKey != nil {
				r.columns = append(r.columns, ref.PrimaryKey.DBName)
			}
		default:
			r.columns = append(r.columns, ref.ForeignKey.DBName)
		}
	}
	return r
}

// bareTable is the table's name without a schema, as sqltext gives it.
func bareTable(table string) string {
	return table[strings.LastIndexByte(table, '.')+1:]
}
