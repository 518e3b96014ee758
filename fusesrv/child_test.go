package fusesrv

func testHelpers() {}
