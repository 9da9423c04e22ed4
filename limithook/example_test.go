package limithook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorminfra/infra/limithook"
)

func ExampleLimiter() {
	limits, err := limithook.NewLimiter(limithook.Config{
		PerUser: limithook.PerMinute(2),
		Global:  limithook.PerMinute(10_000),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	ctx := limithook.WithUser(context.Background(), "alice")
	for range 3 {
		err := limits.Allow(ctx)
		var refused *limithook.Error
		if errors.As(err, &refused) {
			fmt.Printf("%s limit of %d reached, retry in %v\n", refused.Scope, refused.Limit, refused.RetryAfter.Round(time.Minute))
			continue
		}
		fmt.Println("admitted")
	}
	fmt.Println("administrator:", limits.Allow(limithook.Bypass(ctx)))
	// Output:
	// admitted
	// admitted
	// user limit of 2 reached, retry in 1m0s
	// administrator: <nil>
}

func ExampleNew() {
	db, err := gorm.Open(postgres.Open("host=db.example.org"))
	if err != nil {
		fmt.Println(err)
		return
	}
	limits := limithook.New(limithook.Config{PerUser: limithook.PerMinute(100), Global: limithook.PerMinute(10_000)})
	if err := db.Use(limits); err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	var n int64
	ctx := limithook.WithUser(context.Background(), "alice")
	err = db.WithContext(ctx).Table("orders").Count(&n).Error
	fmt.Println(n, errors.Is(err, limithook.ErrLimited))
}

func ExampleWriteLimited() {
	limits, err := limithook.NewLimiter(limithook.Config{PerUser: limithook.PerMinute(1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := limits.Allow(limithook.WithUser(r.Context(), "alice")) // or an error of GORM
		if limithook.WriteLimited(w, r, err) {
			return
		}
		fmt.Fprintln(w, "orders")
	})
	for range 2 {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders", nil))
		fmt.Printf("%d, retry after %q\n", w.Code, w.Header().Get("Retry-After"))
	}
	// Output:
	// 200, retry after ""
	// 429, retry after "60"
}
