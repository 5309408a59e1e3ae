package redis_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // unless the command line says otherwise: most of bustest waits
	goleak.VerifyTestMain(m,
		// A client that is closed while its server is away notices that within a second.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}
