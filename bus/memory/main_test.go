package memory_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // unless the command line says otherwise: most of bustest waits
	goleak.VerifyTestMain(m)
}
