"""inference.face_detection"""
