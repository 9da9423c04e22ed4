package resolver_test

import (
	"fmt"
	"time"

	"github.com/gorminfra/infra/resolver"
)

// A configuration is checked as a whole, before anything is touched.
func ExampleConfig_Validate() {
	cfg := resolver.Config{
		Replicas: []resolver.Node{
			{Name: "near", DSN: "host=10.0.0.2 dbname=shop", Weight: 3, Zone: "a"},
			{Name: "near", DSN: "host=10.1.0.2 dbname=shop", Zone: "b"},
		},
		MaxLag: -time.Second,
		Pool:   resolver.Pool{Min: 60, Max: 50},
	}
	fmt.Println(cfg.Validate())
	// Output:
	// resolver: Replicas[1].Name is "near": must differ from that of Replicas[0]
	// resolver: MaxLag is -1s: must not be negative; zero is the default of 5s
	// resolver: Pool.Min is 60: must not exceed Pool.Max, which is 50
}
