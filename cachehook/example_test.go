package cachehook_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gorminfra/infra/cachehook"
)

// What is kept for one tenant is not there for another one.
func ExampleWithTenant() {
	cache := cachehook.New(cachehook.Config{Logger: slog.New(slog.DiscardHandler)})
	defer cache.Close()
	acme := cachehook.WithTenant(context.Background(), "acme")
	globex := cachehook.WithTenant(context.Background(), "globex")

	_ = cache.Set(acme, "motto", []byte("beep"), time.Minute)
	motto, found := cache.Get(acme, "motto")
	fmt.Printf("%s %v\n", motto, found)
	_, found = cache.Get(globex, "motto")
	fmt.Println(found)
	// Output:
	// beep true
	// false
}

func Example() {
	cache := cachehook.New(cachehook.Config{
		Tables: map[string]cachehook.Rule{"products": {TTL: time.Minute}}, // db.First(&product, 42) is cached
		Logger: slog.New(slog.DiscardHandler),
	})
	// db.Use(cache), and db.Clauses(cachehook.TTL(time.Second)).Find(&orders) for single queries.
	defer cache.Close()

	ctx := context.Background()
	price := func() int {
		v, err := cachehook.Fetch(ctx, cache, "price of 42", time.Minute, []string{"prices"}, func(context.Context) (int, error) {
			fmt.Println("asking the supplier")
			return 7, nil
		})
		if err != nil {
			fmt.Println(err)
		}
		return v
	}
	fmt.Println(price())
	fmt.Println(price())
	_ = cache.Invalidate(ctx, "prices")
	fmt.Println(price())
	// Output:
	// asking the supplier
	// 7
	// 7
	// asking the supplier
	// 7
}
