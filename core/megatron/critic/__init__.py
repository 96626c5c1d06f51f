"""The critic: a second model beside the policy, which says what a response will be worth."""
