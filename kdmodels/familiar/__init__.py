"""Does a picture look like its modality?"""
