package neo

// codeOf returns the code of a message, 0 if the protocol does not have it.
func codeOf(g generation, m message) uint16 {
	differ := func(inStructs, inPacked uint16) uint16 {
		if g == structs {
			return inStructs
		}
		return inPacked
	}
	switch m.(type) {
	case *answerError:
		return isAnswer
	case *requestIdentification:
		return 0x01
	case *acceptIdentification:
		return 0x01 | isAnswer
	case *ping:
		return 0x02
	case *pong:
		return 0x02 | isAnswer
	case *closeClient:
		return 0x03
	case *notPrimaryMaster:
		return 0x05
	case *nodeInformation:
		return 0x06
	case *partitionTable:
		return 0x0a
	case *partitionChanges:
		return 0x0b
	case *stopOperation:
		return 0x0d
	case *invalidateObjects:
		return 0x16
	case *clusterInformation:
		return 0x2d
	case *flushLog:
		return differ(0x42, 0x46)
	case *askLastTransaction:
		return differ(0x38, 0x3c)
	case *answerLastTransaction:
		return differ(0x38, 0x3c) | isAnswer
	case *askObject:
		return 0x20
	case *answerObject:
		return 0x20 | isAnswer
	case *askTIDsFrom:
		return 0x30
	case *answerTIDsFrom:
		return 0x30 | isAnswer
	case *askTransaction:
		return 0x22
	case *answerTransaction:
		return 0x22 | isAnswer
	case *askHistory:
		return 0x23
	case *answerHistory:
		return 0x23 | isAnswer
	case *askOIDsFrom:
		return differ(0, 0x31)
	case *answerOIDsFrom:
		return differ(0, 0x31|isAnswer)
	}
	return 0
}

// newMessage returns an empty message of a code, nil if it is not known.
func newMessage(g generation, code uint16) message {
	switch code {
	case isAnswer:
		return new(answerError)
	case 0x01:
		return new(requestIdentification)
	case 0x01 | isAnswer:
		return new(acceptIdentification)
	case 0x02:
		return new(ping)
	case 0x02 | isAnswer:
		return new(pong)
	case 0x03:
		return new(closeClient)
	case 0x05:
		return new(notPrimaryMaster)
	case 0x06:
		return new(nodeInformation)
	case 0x0a:
		return new(partitionTable)
	case 0x0b:
		return new(partitionChanges)
	case 0x0d:
		return new(stopOperation)
	case 0x16:
		return new(invalidateObjects)
	case 0x2d:
		return new(clusterInformation)
	case 0x20:
		return new(askObject)
	case 0x20 | isAnswer:
		return new(answerObject)
	case 0x30:
		return new(askTIDsFrom)
	case 0x30 | isAnswer:
		return new(answerTIDsFrom)
	case 0x22:
		return new(askTransaction)
	case 0x22 | isAnswer:
		return new(answerTransaction)
	case 0x23:
		return new(askHistory)
	case 0x23 | isAnswer:
		return new(answerHistory)
	}
	if g == structs {
		return newMessage6(code)
	}
	return newMessage5(code)
}

// newMessage6 is newMessage for codes that are protocol 6's only.
func newMessage6(code uint16) message {
	switch code {
	case 0x42:
		return new(flushLog)
	case 0x38:
		return new(askLastTransaction)
	case 0x38 | isAnswer:
		return new(answerLastTransaction)
	}
	return nil
}

// newMessage5 is newMessage for codes that are protocol 5's only.
func newMessage5(code uint16) message {
	switch code {
	case 0x46:
		return new(flushLog)
	case 0x3c:
		return new(askLastTransaction)
	case 0x3c | isAnswer:
		return new(answerLastTransaction)
	case 0x31:
		return new(askOIDsFrom)
	case 0x31 | isAnswer:
		return new(answerOIDsFrom)
	}
	return nil
}
