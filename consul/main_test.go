package consul

import (
	"os"
	"testing"

	"sluice/test/consultest"
)

func TestMain(m *testing.M) {
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}
