"""The provider ``template`` of device-api."""
