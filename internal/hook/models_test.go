package hook_test

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

type Company struct {
	ID   uint
	Name string
}

type User struct {
	ID        uint
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt gorm.DeletedAt
	Name      string
	Age       int
	CompanyID *uint
	Company   *Company
	ManagerID *uint
	Manager   *User
	Team      []User `gorm:"foreignKey:ManagerID"`
	Account   *Account
	Pets      []Pet
	Languages []Language `gorm:"many2many:user_languages"`
}

type Account struct {
	ID     uint
	UserID *uint
	Number string
}

type Pet struct {
	ID     uint
	UserID *uint
	Name   string
	Toys   []Toy `gorm:"polymorphic:Owner"`
}

type Toy struct {
	ID        uint
	Name      string
	OwnerID   uint
	OwnerType string
}

type Language struct {
	Code string `gorm:"primaryKey"`
	Name string
}

// Order has a composite key.
type Order struct {
	Region string `gorm:"primaryKey"`
	No     int    `gorm:"primaryKey;autoIncrement:false"`
	Total  int
	Lines  []Line `gorm:"foreignKey:Region,No;references:Region,No"`
}

type Line struct {
	ID     uint
	Region string
	No     int
	Item   string
}

type Money struct {
	Amount   int
	Currency string
}

// Document has a key that the database makes, serializers, and an embedded struct.
type Document struct {
	ID     string            `gorm:"type:uuid;primaryKey;default:gen_random_uuid()"`
	Tags   map[string]string `gorm:"serializer:json"`
	Blob   []string          `gorm:"serializer:gob"`
	At     int64             `gorm:"serializer:unixtime;type:timestamptz"`
	Price  Money             `gorm:"embedded;embeddedPrefix:price_"`
	Body   []byte
	Note   *string
	hidden int //nolint:unused // GORM must leave it alone
}

func (Document) TableName() string { return "docs_v2" }

// tables is what the models above need.
const tables = `
CREATE TABLE companies (id bigserial PRIMARY KEY, name text);
CREATE TABLE users (id bigserial PRIMARY KEY, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz,
	name text, age bigint, company_id bigint, manager_id bigint);
CREATE TABLE accounts (id bigserial PRIMARY KEY, user_id bigint, number text UNIQUE);
CREATE TABLE pets (id bigserial PRIMARY KEY, user_id bigint, name text);
CREATE TABLE toys (id bigserial PRIMARY KEY, name text, owner_id bigint, owner_type text);
CREATE TABLE languages (code text PRIMARY KEY, name text);
CREATE TABLE user_languages (user_id bigint, language_code text, PRIMARY KEY (user_id, language_code));
CREATE TABLE orders (region text, no bigint, total bigint, PRIMARY KEY (region, no));
CREATE TABLE lines (id bigserial PRIMARY KEY, region text, no bigint, item text);
CREATE TABLE docs_v2 (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tags text, blob bytea, at timestamptz,
	price_amount bigint, price_currency text, body bytea, note text);
CREATE TABLE witnesses (id bigserial PRIMARY KEY, name text);
`

const emptyTables = `
DELETE FROM companies; DELETE FROM users; DELETE FROM accounts; DELETE FROM pets; DELETE FROM toys; DELETE FROM languages;
DELETE FROM user_languages; DELETE FROM orders; DELETE FROM lines; DELETE FROM docs_v2; DELETE FROM witnesses;
SELECT setval('companies_id_seq', 1, false), setval('users_id_seq', 1, false), setval('accounts_id_seq', 1, false),
	setval('pets_id_seq', 1, false), setval('toys_id_seq', 1, false), setval('lines_id_seq', 1, false), setval('witnesses_id_seq', 1, false);
`

// Witness calls the functions that its statement's context carries from its
// hooks.
type Witness struct {
	ID   uint
	Name string
}

type hookKey struct{}

// onHook makes the hooks of Witness call f with their name.
func onHook(ctx context.Context, f func(hook string, w *Witness, tx *gorm.DB) error) context.Context {
	return context.WithValue(ctx, hookKey{}, f)
}

func (w *Witness) call(name string, tx *gorm.DB) error {
	if f, ok := tx.Statement.Context.Value(hookKey{}).(func(string, *Witness, *gorm.DB) error); ok {
		return f(name, w, tx)
	}
	return nil
}

func (w *Witness) BeforeSave(tx *gorm.DB) error   { return w.call("BeforeSave", tx) }
func (w *Witness) AfterSave(tx *gorm.DB) error    { return w.call("AfterSave", tx) }
func (w *Witness) BeforeCreate(tx *gorm.DB) error { return w.call("BeforeCreate", tx) }
func (w *Witness) AfterCreate(tx *gorm.DB) error  { return w.call("AfterCreate", tx) }
func (w *Witness) BeforeUpdate(tx *gorm.DB) error { return w.call("BeforeUpdate", tx) }
func (w *Witness) AfterUpdate(tx *gorm.DB) error  { return w.call("AfterUpdate", tx) }
func (w *Witness) BeforeDelete(tx *gorm.DB) error { return w.call("BeforeDelete", tx) }
func (w *Witness) AfterDelete(tx *gorm.DB) error  { return w.call("AfterDelete", tx) }
func (w *Witness) AfterFind(tx *gorm.DB) error    { return w.call("AfterFind", tx) }

// seed gives three users with all kinds of relations.
func (e *env) seed() {
	e.exec(`
INSERT INTO companies (name) VALUES ('acme'), ('globex');
INSERT INTO users (created_at, updated_at, name, age, company_id, manager_id) VALUES
	('2024-01-01Z', '2024-01-01Z', 'ann', 30, 1, NULL), ('2024-01-01Z', '2024-01-01Z', 'bob', 40, 2, 1), ('2024-01-01Z', '2024-01-01Z', 'cyd', 50, NULL, 1);
INSERT INTO accounts (user_id, number) VALUES (1, 'a-1'), (2, 'a-2');
INSERT INTO pets (user_id, name) VALUES (1, 'rex'), (1, 'tom'), (2, 'kit');
INSERT INTO toys (name, owner_id, owner_type) VALUES ('ball', 1, 'pets'), ('bone', 1, 'pets'), ('wool', 3, 'pets');
INSERT INTO languages VALUES ('en', 'English'), ('fr', 'French'), ('de', 'German');
INSERT INTO user_languages VALUES (1, 'en'), (1, 'fr'), (2, 'en');
INSERT INTO orders VALUES ('eu', 1, 10), ('eu', 2, 20), ('us', 1, 30);
INSERT INTO lines (region, no, item) VALUES ('eu', 1, 'pen'), ('eu', 1, 'ink'), ('us', 1, 'cup');
INSERT INTO witnesses (name) VALUES ('w1'), ('w2'), ('w3'), ('w4');`)
}

// lookedUp is a value that reads and writes while a statement is being built.
type lookedUp struct{ user uint }

func (l lookedUp) GormValue(_ context.Context, db *gorm.DB) clause.Expr {
	var name string
	tx := db.Session(&gorm.Session{NewDB: true})
	tx.Model(&User{}).Where("id = ?", l.user).Pluck("name", &name)
	tx.Create(&Toy{Name: "made while building"})
	err := tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Toy{Name: "and in a transaction"}).Error })
	if err != nil {
		name = err.Error()
	}
	return clause.Expr{SQL: "?", Vars: []any{name}}
}
